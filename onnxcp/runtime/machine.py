"""This machine: its CPU, and the NVIDIA GPUs that its driver reports.

The facts come from the operating system and the driver, and need no ONNX Runtime.
"""

import ctypes
import functools
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from onnxcp.runtime.cores import usable

DRIVERS = {"Linux": "libcuda.so.1", "Windows": "nvcuda.dll"}
NO_DEVICE, TOO_OLD = 100, (35, 803)  # results of cuInit
MAJOR, MINOR = 75, 76  # attributes of a device: its compute capability
NO_GPU = "no NVIDIA GPU"
VISIBLE = "CUDA_VISIBLE_DEVICES"  # hides devices, all of them if it is empty
DRIVER_REMEDY = (
    "install the NVIDIA driver until nvidia-smi lists the GPU, start a container with --gpus all, "
    "or choose <<provider=cpu>>"
)
MIN_DRIVER = {12: 525, 13: 580}  # by CUDA's major version (NVIDIA's release notes)
CUDA_12 = "'onnxruntime-gpu[cuda,cudnn]<1.27'"  # 1.27 is the first whose wheel needs CUDA 13


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA device: its memory in bytes, and its compute capability, such as "9.0"."""

    name: str
    bytes: int
    capability: str


@dataclass(frozen=True, slots=True)
class Nvidia:
    """The NVIDIA driver and its devices.

    `cuda` is the newest CUDA that the driver supports, such as (13, 0). `problem` says why no
    device can be used, None if one can.
    """

    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    cuda: tuple[int, int] | None = None
    problem: str | None = None


@functools.cache
def nvidia() -> Nvidia:
    """The devices that the NVIDIA driver reports; a missing driver is a `problem`, not an error."""
    library = DRIVERS.get(platform.system(), "")
    try:
        driver = ctypes.CDLL(library) if library else None
    except OSError:
        driver = None
    if driver is None:
        return Nvidia(problem=f"{NO_GPU}: the driver's library {library or 'libcuda'} is missing")
    return _queried(driver)


def no_cuda(needed: int) -> str | None:
    """Why software built for this major version of CUDA cannot run here, with a remedy.

    None if it can. A driver supports all minor versions of its CUDA's major version, and older
    major versions.
    """
    driver = nvidia()
    if driver.problem is not None:
        return f"{driver.problem}; {DRIVER_REMEDY}"
    if driver.cuda is None or driver.cuda[0] >= needed:
        return None
    minimum = f" to {MIN_DRIVER[needed]} or newer" if needed in MIN_DRIVER else ""
    alternative = (
        f"; or take a build for CUDA 12: pip install {CUDA_12}" if driver.cuda[0] == 12 else ""
    )
    return (
        f"the NVIDIA driver {driver.driver} supports at most CUDA "
        f"{driver.cuda[0]}.{driver.cuda[1]}, and this ONNX Runtime needs CUDA {needed}; update "
        f"the driver{minimum}{alternative}"
    )


def _queried(driver: ctypes.CDLL) -> Nvidia:
    state = driver.cuInit(0)
    number = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(number))
    cuda = (number.value // 1000, number.value % 1000 // 10)
    if state != 0:
        why = _no_device() if state == NO_DEVICE else f"cuInit returns {state}"
        why = "the driver is too old for this kernel or container" if state in TOO_OLD else why
        return Nvidia((), _driver_version(), cuda, f"{NO_GPU}: {why}")
    driver.cuDeviceGetCount(ctypes.byref(number))
    gpus = tuple(_gpu(driver, index) for index in range(number.value))
    return Nvidia(gpus, _driver_version(), cuda, None if gpus else f"{NO_GPU}: {_no_device()}")


def _no_device() -> str:
    hidden = os.environ.get(VISIBLE)
    return "no device" if hidden is None else f"no device, with {VISIBLE} set to {hidden!r}"


def _gpu(driver: ctypes.CDLL, index: int) -> Gpu:
    device, size, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    version = [ctypes.c_int(), ctypes.c_int()]
    for value, attribute in zip(version, (MAJOR, MINOR), strict=True):
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return Gpu(name.value.decode(), size.value, ".".join(str(v.value) for v in version))


def _driver_version() -> str:
    """The driver's version as Linux reports it; empty if it does not."""
    text = _text(Path("/proc/driver/nvidia/version"))
    match = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return match.group(1) if match else ""


def cpu_flags() -> frozenset[str]:
    """The instruction set flags of this CPU by Linux's names; empty on other systems."""
    return frozenset(_of_cpu("flags", "Features").split())


def cpu_name() -> str:
    """The name of the CPU from Linux, else from Python."""
    return _of_cpu("model name").strip() or platform.processor() or platform.machine()


def cores() -> float:
    """The cores that this process may use; a fraction if a container's quota is one."""
    return usable().exact


def physical_cores() -> int | None:
    """The number of cores without hyper-threads; None if Linux does not report it."""
    text = _text(Path("/proc/cpuinfo"))
    pairs = re.findall(r"physical id\s*: (\d+).*?core id\s*: (\d+)", text, re.DOTALL)
    return len(set(pairs)) or None


def memory_bytes() -> int | None:
    """The size of main memory; None if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _of_cpu(*starts: str) -> str:
    """The value of the first line of /proc/cpuinfo with one of these names; empty if none."""
    lines = _text(Path("/proc/cpuinfo")).splitlines()
    return next((line for line in lines if line.startswith(starts)), "").partition(":")[2]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
