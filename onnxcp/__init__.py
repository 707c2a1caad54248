"""onnxcp: measured faster CNNs in ONNX, within an accuracy budget.

    report = onnxcp.optimize(onnxcp.Settings(model, output, onnxcp.Target.named("cpu")))

The names are imported when they are first used, so that `import onnxcp` costs nothing. Of the
standard library nothing is imported that Python has not loaded by then: under `python -m` it
would come from the current folder.
"""

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from onnxcp.errors import OnnxcpError
    from onnxcp.inputs import Sources
    from onnxcp.judging import Limits
    from onnxcp.pipeline import optimize
    from onnxcp.providers import Target
    from onnxcp.report import Report
    from onnxcp.settings import Settings

__version__ = "0.1.0"

_HOMES = {
    "Limits": "judging",
    "OnnxcpError": "errors",
    "Report": "report",
    "Settings": "settings",
    "Sources": "inputs",
    "Target": "providers",
    "optimize": "pipeline",
}

__all__ = ["Limits", "OnnxcpError", "Report", "Settings", "Sources", "Target", "optimize"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'onnxcp' has no attribute {name!r}")
    return getattr(importlib.import_module(f"onnxcp.{_HOMES[name]}"), name)
