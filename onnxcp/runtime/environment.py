"""The environment that a timing depends on, as reports record it."""

import ctypes
import platform
import sys
from collections.abc import Callable, Sequence
from typing import Any

from onnxcp.runtime.machine import cpu_flags, cpu_name, nvidia
from onnxcp.runtime.ort import cuda_major, cuda_version, runtime
from onnxcp.runtime.providers import Target

RECORDED_FLAGS = ("avx2", "avx512f", "avx512_vnni", "amx_int8", "asimd")


def environment(target: Target) -> dict[str, Any]:
    """The machine and ONNX Runtime, and for a GPU target its GPU, driver, CUDA and cuDNN."""
    record = {
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "onnxruntime": str(runtime().__version__),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cpu_flags": [flag for flag in RECORDED_FLAGS if flag in cpu_flags()],
        "channel_block": target.block,
        "provider_options": target.settings,
    }
    return {**record, **_of_gpu(target)} if target.provider.device == "cuda" else record


def _of_gpu(target: Target) -> dict[str, Any]:
    driver = nvidia()
    number = int(target.settings.get("device_id", "0"))
    gpu = driver.gpus[number].name if number < len(driver.gpus) else None
    return {
        "gpu": gpu,
        "driver": driver.driver,
        "cuda": cuda_version(),
        "cudnn": cudnn(),
    }


def cudnn() -> str | None:
    """The version of the loaded cuDNN, such as "9.10.2"; None if it is not loaded."""
    number = _reported(
        ("libcudnn.so.9", "cudnn64_9.dll"), lambda library: library.cudnnGetVersion()
    )
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}" if number else None


def cudart() -> str | None:
    """The version of the loaded CUDA runtime, such as "13.0"; None if it is not loaded."""
    major = cuda_major()
    number = _reported((f"libcudart.so.{major}", f"cudart64_{major}.dll"), _runtime_version)
    return f"{number // 1000}.{number % 1000 // 10}" if number else None


def _runtime_version(library: ctypes.CDLL) -> int:
    number = ctypes.c_int()
    library.cudaRuntimeGetVersion(ctypes.byref(number))
    return number.value


def _reported(names: Sequence[str], ask: Callable[[ctypes.CDLL], int]) -> int | None:
    """The answer of the first of these libraries that loads; None if none does."""
    for name in names:
        try:
            return ask(ctypes.CDLL(name))
        except (OSError, AttributeError):
            continue
    return None
