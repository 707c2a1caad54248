"""The bundled model and its samples, and the command run in this process."""

from pathlib import Path

from typer.testing import CliRunner

from onnxcp.cli import app

ROOT = Path(__file__).parents[2]
MODEL, DATA = ROOT / "models/digits.onnx", ROOT / "models/digits.npz"


def onnxcp(*arguments):
    """Run a command; exit code, stdout and stderr apart."""
    return CliRunner().invoke(app, [str(a) for a in arguments])
