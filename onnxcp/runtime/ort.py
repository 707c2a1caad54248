"""The onnxruntime module, loaded when it is first needed."""

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
SILENT = 4  # a log severity of ONNX Runtime: only fatal messages


def runtime() -> ModuleType:
    """The onnxruntime module; its log is silenced, unless another module loaded it before.

    Raises:
        MissingPackage: it is not installed or does not load; names the command to install it.
    """
    is_new = "onnxruntime" not in sys.modules
    try:
        import onnxruntime
    except ImportError as error:
        is_installed = error.name != "onnxruntime"
        raise MissingPackage(_broken(str(error)) if is_installed else INSTALL) from error
    if not hasattr(onnxruntime, "InferenceSession"):  # only its folder is left
        raise MissingPackage(_broken("its files are missing") if builds() else INSTALL)
    if is_new:
        onnxruntime.set_default_logger_severity(SILENT)
    module: ModuleType = onnxruntime
    return module


def _broken(cause: str) -> str:
    """The message for a broken installation, such as after one of two builds was uninstalled."""
    installed = [f"{name}=={version}" for name, version in builds().items()]
    return (
        f"ONNX Runtime is installed ({', '.join(installed)}) but does not load: {cause}; install "
        f"it again: pip install --force-reinstall --no-deps {' '.join(installed[-1:])}"
    )


def available() -> tuple[str, ...]:
    """ONNX Runtime's names of the providers it was built with."""
    return tuple(runtime().get_available_providers())


def builds() -> dict[str, str]:
    """Versions of the installed packages that provide onnxruntime, by name; should be one."""
    import importlib.metadata  # imported here because it is slow to import

    names = importlib.metadata.packages_distributions().get("onnxruntime", [])
    return {name: importlib.metadata.version(name) for name in sorted(set(names))}


def cuda_version() -> str | None:
    """The CUDA version that onnxruntime was built for, such as "13.0"; None without CUDA."""
    return getattr(runtime(), "cuda_version", None) or None


def cuda_major() -> int:
    """The major CUDA version, which decides the drivers and libraries needed; 0 without CUDA."""
    major = (cuda_version() or "").partition(".")[0]
    return int(major) if major.isdecimal() else 0


@functools.cache
def load_cuda() -> None:
    """Load CUDA and cuDNN from their Python packages, if ONNX Runtime supports it.

    Libraries that do not load are reported by the session that needs them.
    """
    preload = getattr(runtime(), "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints missing libraries
            preload()
