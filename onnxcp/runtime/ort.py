"""The onnxruntime module, loaded when it is first needed.

`providers` and `sessions` are the only others that know it.
"""

import contextlib
import functools
import io
import sys
from types import ModuleType

from onnxcp.errors import MissingPackage

INSTALL = (
    "ONNX Runtime is not installed: pip install 'onnxcp[cpu]' for CPUs, or "
    "pip install 'onnxcp[gpu]' for NVIDIA GPUs (one of the two, never both)"
)
SILENT = 4  # of the runtime's log severities: what it says in passing is no result of ours


def runtime() -> ModuleType:
    """The module. Raises MissingPackage with the command that installs it. Who has loaded it
    before has set its log, too; else it logs nothing."""
    is_new = "onnxruntime" not in sys.modules
    try:
        import onnxruntime
    except ImportError as error:
        there = error.name != "onnxruntime"
        raise MissingPackage(_broken(str(error)) if there else INSTALL) from error
    if not hasattr(onnxruntime, "InferenceSession"):  # a folder is all that is left of it
        raise MissingPackage(_broken("its files are gone") if builds() else INSTALL)
    if is_new:
        onnxruntime.set_default_logger_severity(SILENT)
    module: ModuleType = onnxruntime
    return module


def _broken(cause: str) -> str:
    """Of two builds one may have been uninstalled, and with it the module of both."""
    here = [f"{name}=={version}" for name, version in builds().items()]
    return (
        f"ONNX Runtime is installed ({', '.join(here)}) but does not load: {cause}; install it "
        f"anew: pip install --force-reinstall --no-deps {' '.join(here[-1:])}"
    )


def available() -> tuple[str, ...]:
    """The runtime's names of the providers it was built with."""
    return tuple(runtime().get_available_providers())


def builds() -> dict[str, str]:
    """The installed packages that are this module, with their versions: one, if all is well."""
    import importlib.metadata  # which costs a tenth of the time that help may take

    found = importlib.metadata.packages_distributions().get("onnxruntime", [])
    return {name: importlib.metadata.version(name) for name in sorted(set(found))}


def cuda_version() -> str | None:
    """Of the CUDA that the module was built for, as in "13.0"; None if it was built for none."""
    return getattr(runtime(), "cuda_version", None) or None


def cuda_major() -> int:
    """The number that decides which drivers and libraries serve; 0 if it was built for none."""
    major = (cuda_version() or "").partition(".")[0]
    return int(major) if major.isdecimal() else 0


@functools.cache
def load_cuda() -> None:
    """Load CUDA and cuDNN from their Python packages, where the runtime knows how.

    What does not load is told by the session that lacks it.
    """
    preload = getattr(runtime(), "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            preload()
