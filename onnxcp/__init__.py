"""onnxcp: measured faster CNNs in ONNX, within an accuracy budget.

    result = onnxcp.optimize("model.onnx", data="val.npz", max_drop=0.01)
    if result.model is not None:
        result.save("model.cp.onnx")

The verbs are those of the command line, and their keywords its options. The names are imported
when they are first used, so that `import onnxcp` costs nothing. Of the standard library nothing
is imported that Python has not loaded by then: under `python -m` it would come from the current
folder.
"""

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from onnxcp.api.benchmark import BenchmarkResult, benchmark
    from onnxcp.api.decompose import Decomposition, decompose
    from onnxcp.api.doctor import DoctorResult, doctor
    from onnxcp.api.finetune import FinetuneResult, finetune
    from onnxcp.api.inspect import InspectResult, inspect
    from onnxcp.api.optimize import OptimizeResult, optimize
    from onnxcp.api.profile import ProfileResult, profile
    from onnxcp.api.replace import replace
    from onnxcp.api.verify import VerifyResult, verify
    from onnxcp.chain import Geometry, Stage
    from onnxcp.errors import OnnxcpError
    from onnxcp.plan import Choice, Plan
    from onnxcp.results import Report

__version__ = "0.1.0"

_HOMES = {
    "BenchmarkResult": "api.benchmark",
    "Choice": "plan",
    "Decomposition": "api.decompose",
    "DoctorResult": "api.doctor",
    "FinetuneResult": "api.finetune",
    "Geometry": "chain",
    "InspectResult": "api.inspect",
    "OnnxcpError": "errors",
    "OptimizeResult": "api.optimize",
    "Plan": "plan",
    "ProfileResult": "api.profile",
    "Report": "results",
    "Stage": "chain",
    "VerifyResult": "api.verify",
    "benchmark": "api.benchmark",
    "decompose": "api.decompose",
    "doctor": "api.doctor",
    "finetune": "api.finetune",
    "inspect": "api.inspect",
    "optimize": "api.optimize",
    "profile": "api.profile",
    "replace": "api.replace",
    "verify": "api.verify",
}

__all__ = [
    "BenchmarkResult",
    "Choice",
    "Decomposition",
    "DoctorResult",
    "FinetuneResult",
    "Geometry",
    "InspectResult",
    "OnnxcpError",
    "OptimizeResult",
    "Plan",
    "ProfileResult",
    "Report",
    "Stage",
    "VerifyResult",
    "benchmark",
    "decompose",
    "doctor",
    "finetune",
    "inspect",
    "optimize",
    "profile",
    "replace",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'onnxcp' has no attribute {name!r}")
    return getattr(importlib.import_module(f"onnxcp.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
