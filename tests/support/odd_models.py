"""Real models from many exporters, and runs of the command on them.

The models are not part of the project: ONNXCP_DATA says where they are.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from onnxcp.cli import app

DATA = Path(os.environ.get("ONNXCP_DATA", Path(__file__).parents[3] / "shared" / "data"))


@dataclass(frozen=True)
class Odd:
    """A model, what it holds, and how to run it in reasonable time.

    `windowed` of its convolutions that are sites have a window, `one_sided` of these one that
    cp4 refuses. `searched` are the sites looked at without forced ranks.
    """

    file: str
    sites: int
    windowed: int
    skips: int
    one_sided: int = 0
    shapes: tuple[str, ...] = ()
    rank: str = "1.0c"
    searched: tuple[str, ...] = ("*",)

    @property
    def arguments(self) -> list[str]:
        return [word for shape in self.shapes for word in ("--input-shape", shape)]


MODELS = {
    "meshnet": Odd(
        "odd/meshnet30_18cls_ext.onnx",
        10,
        9,
        0,
        shapes=("input:1x1x16x16x16",),
        searched=("conv3d_2",),
    ),
    "oww": Odd("odd/oww_embedding_model.onnx", 20, 20, 0, one_sided=19),
    "ppocr": Odd("odd/ppocr_v3_det.onnx", 57, 6, 17, shapes=("x:1x3x320x320",)),
    "silero": Odd("odd/silero_vad.onnx", 0, 0, 12, shapes=("input:1x512", "state:2x1x128")),
    "ultraface": Odd("odd/ultraface_RFB-320.onnx", 34, 10, 18),
    "squeezenet": Odd(
        "odd/winml_SqueezeNet_fp16.onnx", 26, 9, 0, searched=("*conv1_1", "*fire2/*")
    ),
    "candy": Odd("odd/winml_candy.onnx", 14, 14, 2, searched=("convolution15",)),
    "cifar": Odd("odd/winml_pytorch_cifar_ImageClassifier.onnx", 4, 4, 0),
    "darknet": Odd(
        "imagenet/darknet_tiny.onnx", 16, 8, 0, rank="0.25c", searched=("conv2d_[1-4]",)
    ),
    "vdsr": Odd(
        "vdsr/vdsr.onnx", 20, 20, 0, shapes=("input:1x1x64x64",), searched=("*put_conv", "res0")
    ),
    "mnist": Odd("mnist/mnist-8.onnx", 2, 2, 0),
}


def path_of(odd: Odd) -> Path:
    if not DATA.is_dir() and "ONNXCP_DATA" not in os.environ:
        pytest.skip(f"no real models: {DATA} is no folder, and ONNXCP_DATA names no other one")
    path = DATA / odd.file
    assert path.is_file(), f"{path} is missing"
    return path


def run(*arguments: object) -> tuple[int, str]:
    """Exit code and stdout of the command line."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    return result.exit_code, result.stdout


def optimized(odd: Odd, folder: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code and report of a run that writes `out.onnx`."""
    record = folder / "run.json"
    shared = ("--report", record, "-o", folder / "out.onnx", "--jobs", 2, "--threads", 1)
    words = map(str, ("optimize", path_of(odd), *shared, *odd.arguments, *options))
    ended = CliRunner().invoke(app, list(words))
    code, text = ended.exit_code, ended.output
    if code == 1 and "too busy to measure" in text:
        pytest.skip("other work runs in most turns: nothing is told, and nothing written")
    assert record.exists(), text
    report: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    assert report["exit_code"] == code
    return code, report
