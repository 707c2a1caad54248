"""What a timing depends on, for the record."""

import platform
import sys
from typing import Any

from onnxcp.machine import cpu_flags, cpu_name, nvidia
from onnxcp.providers import Target
from onnxcp.runtime import runtime

TOLD = ("avx2", "avx512f", "avx512_vnni", "amx_int8", "asimd")


def environment(target: Target) -> dict[str, Any]:
    """The machine and the runtime; where the target is a GPU, that too."""
    found = {
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "onnxruntime": str(runtime().__version__),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cpu_flags": [flag for flag in TOLD if flag in cpu_flags()],
        "channel_block": target.block,
        "provider_options": target.settings,
    }
    return {**found, **_of_gpu(target)} if target.provider.device == "cuda" else found


def _of_gpu(target: Target) -> dict[str, Any]:
    told = nvidia()
    number = int(target.settings.get("device_id", "0"))
    gpu = told.gpus[number].name if number < len(told.gpus) else None
    return {
        "gpu": gpu,
        "driver": told.driver,
        "cuda": getattr(runtime(), "cuda_version", None) or None,
        "cudnn": _cudnn(),
    }


def _cudnn() -> str | None:
    """The version of the cuDNN that is loaded, as in "9.10.2"; None if it does not tell."""
    import ctypes

    for name in ("libcudnn.so.9", "cudnn64_9.dll"):
        try:
            number = ctypes.CDLL(name).cudnnGetVersion()
        except (OSError, AttributeError):
            continue
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return None
