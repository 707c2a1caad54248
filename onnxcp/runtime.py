"""The onnxruntime module, loaded when it is first needed.

`providers` and `sessions` are the only others that know it.
"""

import contextlib
import functools
import importlib.metadata
import io
from types import ModuleType

from onnxcp.errors import MissingPackage

INSTALL = (
    "ONNX Runtime is not installed: pip install 'onnxcp[cpu]' for CPUs, or "
    "pip install 'onnxcp[gpu]' for NVIDIA GPUs (one of the two, never both)"
)
SILENT = 4  # of the runtime's log severities: what it says in passing is no result of ours


def runtime() -> ModuleType:
    """The module. Raises MissingPackage with the command that installs it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackage(INSTALL) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise MissingPackage(INSTALL)
    onnxruntime.set_default_logger_severity(SILENT)
    module: ModuleType = onnxruntime
    return module


def available() -> tuple[str, ...]:
    """The runtime's names of the providers it was built with."""
    return tuple(runtime().get_available_providers())


def builds() -> dict[str, str]:
    """The installed packages that are this module, with their versions: one, if all is well."""
    found = importlib.metadata.packages_distributions().get("onnxruntime", [])
    return {name: importlib.metadata.version(name) for name in sorted(set(found))}


@functools.cache
def load_cuda() -> None:
    """Load CUDA and cuDNN from their Python packages, where the runtime knows how.

    What does not load is told by the session that lacks it.
    """
    preload = getattr(runtime(), "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            preload()
