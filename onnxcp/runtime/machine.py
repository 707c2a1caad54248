"""What this machine is: its CPU, and the NVIDIA GPUs that its driver offers.

Asked of the operating system and of the driver itself, so that it can be told without any
runtime, and where a runtime does not load.
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
    "install the NVIDIA driver till nvidia-smi lists the GPU, start a container with --gpus all, "
    "or choose <<provider=cpu>>"
)
OLDEST_DRIVER = {12: 525, 13: 580}  # by CUDA's major version (NVIDIA's release notes)
CUDA_12 = "'onnxruntime-gpu[cuda,cudnn]<1.27'"  # 1.27 is the first whose wheel needs CUDA 13


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA device; `capability` as in "9.0"."""

    name: str
    bytes: int
    capability: str


@dataclass(frozen=True, slots=True)
class Nvidia:
    """What the driver says. `cuda` is the newest CUDA it serves, as in (13, 0); `problem` why
    no device can be used, or None."""

    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    cuda: tuple[int, int] | None = None
    problem: str | None = None


@functools.cache
def nvidia() -> Nvidia:
    """Ask the NVIDIA driver for its devices."""
    library = DRIVERS.get(platform.system(), "")
    try:
        driver = ctypes.CDLL(library) if library else None
    except OSError:
        driver = None
    if driver is None:
        return Nvidia(problem=f"{NO_GPU}: the driver's library {library or 'libcuda'} is not there")
    return _asked(driver)


def no_cuda(needed: int) -> str | None:
    """Why what was built for this major version of CUDA can not run here, and what to do;
    None if nothing speaks against it.

    A driver serves all minor versions of its CUDA's major version, and older ones.
    """
    told = nvidia()
    if told.problem is not None:
        return f"{told.problem}; {DRIVER_REMEDY}"
    if told.cuda is None or told.cuda[0] >= needed:
        return None
    least = f" to {OLDEST_DRIVER[needed]} or newer" if needed in OLDEST_DRIVER else ""
    other = f"; or take a build for CUDA 12: pip install {CUDA_12}" if told.cuda[0] == 12 else ""
    return (
        f"the NVIDIA driver {told.driver} serves CUDA {told.cuda[0]}.{told.cuda[1]} at most, and "
        f"this ONNX Runtime needs CUDA {needed}; update the driver{least}{other}"
    )


def _asked(driver: ctypes.CDLL) -> Nvidia:
    state = driver.cuInit(0)
    number = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(number))
    cuda = (number.value // 1000, number.value % 1000 // 10)
    if state != 0:
        why = _no_device() if state == NO_DEVICE else f"cuInit gives {state}"
        why = "the driver is too old for this kernel or container" if state in TOO_OLD else why
        return Nvidia((), _driver_version(), cuda, f"{NO_GPU}: {why}")
    driver.cuDeviceGetCount(ctypes.byref(number))
    gpus = tuple(_gpu(driver, index) for index in range(number.value))
    return Nvidia(gpus, _driver_version(), cuda, None if gpus else f"{NO_GPU}: {_no_device()}")


def _no_device() -> str:
    hidden = os.environ.get(VISIBLE)
    return "no device" if hidden is None else f"no device, where {VISIBLE} is {hidden!r}"


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
    """As Linux tells it; empty where it does not."""
    told = _text(Path("/proc/driver/nvidia/version"))
    found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", told)
    return found.group(1) if found else ""


def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of this CPU as Linux names them; empty where it does not tell."""
    return frozenset(_of_cpu("flags", "Features").split())


def cpu_name() -> str:
    """The CPU as Linux, else Python, names it."""
    return _of_cpu("model name").strip() or platform.processor() or platform.machine()


def cores() -> float:
    """Cores that this process may use; a container's quota may be a fraction."""
    return usable().exact


def physical_cores() -> int | None:
    """Cores without their hyper-threads, as Linux tells; None where it does not."""
    told = _text(Path("/proc/cpuinfo"))
    pairs = re.findall(r"physical id\s*: (\d+).*?core id\s*: (\d+)", told, re.DOTALL)
    return len(set(pairs)) or None


def memory_bytes() -> int | None:
    """Main memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _of_cpu(*starts: str) -> str:
    """What Linux says of the first CPU on the line that starts so; empty where it does not."""
    lines = _text(Path("/proc/cpuinfo")).splitlines()
    return next((line for line in lines if line.startswith(starts)), "").partition(":")[2]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
