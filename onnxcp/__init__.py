"""onnxcp: measured faster CNNs in ONNX, within an accuracy budget.

    report = onnxcp.optimize(onnxcp.Settings(model, output, onnxcp.Target.named("cpu")))

The names are imported when they are first used, so that `import onnxcp` costs nothing. Of the
standard library nothing is imported that Python has not loaded by then: under `python -m` it
would come from the current folder.
"""

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from onnxcp.api.decompose import Decomposition, decompose
    from onnxcp.api.replace import replace
    from onnxcp.chain import Geometry, Stage
    from onnxcp.data.roles import Sources
    from onnxcp.errors import OnnxcpError
    from onnxcp.measure.evaluator import Limits
    from onnxcp.optimization.pipeline import optimize
    from onnxcp.optimization.settings import Settings
    from onnxcp.report import Report
    from onnxcp.runtime.providers import Target

__version__ = "0.1.0"

_HOMES = {
    "Decomposition": "api.decompose",
    "Geometry": "chain",
    "Limits": "measure.evaluator",
    "OnnxcpError": "errors",
    "Report": "results",
    "Settings": "optimization.settings",
    "Sources": "data.roles",
    "Stage": "chain",
    "Target": "runtime.providers",
    "decompose": "api.decompose",
    "optimize": "optimization.pipeline",
    "replace": "api.replace",
}

__all__ = [
    "Decomposition",
    "Geometry",
    "Limits",
    "OnnxcpError",
    "Report",
    "Settings",
    "Sources",
    "Stage",
    "Target",
    "decompose",
    "optimize",
    "replace",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'onnxcp' has no attribute {name!r}")
    return getattr(importlib.import_module(f"onnxcp.{_HOMES[name]}"), name)
