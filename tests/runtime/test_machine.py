"""What the NVIDIA driver says, asked of a driver that is made up."""

import ctypes
import platform

import pytest

from onnxcp.runtime import machine
from onnxcp.runtime.machine import Gpu, no_cuda, nvidia


class Driver:
    """Answers as libcuda does: results are zero, or what `state` says; values by reference."""

    def __init__(self, state=0, version=13000, names=(b"Tesla T4",)):
        self.state, self.version, self.names = state, version, names

    def cuInit(self, flags):
        return self.state

    def cuDriverGetVersion(self, number):
        number._obj.value = self.version

    def cuDeviceGetCount(self, number):
        number._obj.value = len(self.names)

    def cuDeviceGet(self, device, index):
        device._obj.value = index

    def cuDeviceGetName(self, name, size, device):
        name.value = self.names[device.value]

    def cuDeviceTotalMem_v2(self, size, device):
        size._obj.value = 15 * 2**30

    def cuDeviceGetAttribute(self, number, attribute, device):
        number._obj.value = {machine.MAJOR: 7, machine.MINOR: 5}[attribute]


def absent(name):
    raise OSError(f"{name}: cannot open shared object file")


@pytest.fixture
def driver(monkeypatch):
    """Puts a driver in place of this machine's; without one there is none."""

    def put(made=None):
        machine.nvidia.cache_clear()
        monkeypatch.setattr(ctypes, "CDLL", absent if made is None else lambda name: made)

    monkeypatch.delenv(machine.VISIBLE, raising=False)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    put()
    yield put
    machine.nvidia.cache_clear()


def test_without_its_library_there_is_no_gpu(driver):
    assert nvidia().problem == "no NVIDIA GPU: the driver's library libcuda.so.1 is missing"
    assert (nvidia().gpus, nvidia().cuda) == ((), None)


def test_a_system_without_nvidia_drivers_has_none(driver, monkeypatch):
    driver(Driver())
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert nvidia().problem.startswith("no NVIDIA GPU: ")


REFUSALS = {
    100: "no device",
    35: "the driver is too old",
    803: "the driver is too old",
    999: "cuInit returns 999",
}


@pytest.mark.parametrize("state", REFUSALS)
def test_a_driver_that_does_not_start_says_why(state, driver):
    driver(Driver(state))
    assert nvidia().problem.startswith(f"no NVIDIA GPU: {REFUSALS[state]}")
    assert (nvidia().gpus, nvidia().cuda) == ((), (13, 0))


@pytest.mark.parametrize("made", [Driver(100), Driver(names=())], ids=["refused", "counted"])
def test_devices_that_a_variable_hides_are_told(made, driver, monkeypatch):
    driver(made)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert nvidia().problem == "no NVIDIA GPU: no device, with CUDA_VISIBLE_DEVICES set to ''"


def test_every_gpu_is_told_with_its_memory_and_capability(driver):
    driver(Driver(version=12040, names=(b"Tesla T4", b"Another")))
    assert nvidia().gpus == tuple(Gpu(n, 15 * 2**30, "7.5") for n in ("Tesla T4", "Another"))
    assert (nvidia().cuda, nvidia().problem) == ((12, 4), None)


def test_nothing_speaks_against_cuda_of_the_drivers_major_version_or_older(driver):
    driver(Driver(version=13000))
    assert no_cuda(13) is None
    assert no_cuda(12) is None


def test_a_driver_older_than_the_runtimes_cuda_is_told_with_both_ways_out(driver):
    driver(Driver(version=12080))
    cause, update, other = no_cuda(13).split("; ")
    assert "supports at most CUDA 12.8" in cause
    assert "580" in update
    assert other.endswith("pip install 'onnxruntime-gpu[cuda,cudnn]<1.27'")


def test_a_machine_without_a_gpu_is_told_what_brings_one(driver):
    cause, remedy = no_cuda(13).split("; ")
    assert cause.startswith("no NVIDIA GPU")
    assert "install the NVIDIA driver" in remedy
    assert "<<provider=cpu>>" in remedy


def test_this_machine_has_cores_and_a_name():
    assert machine.cores() > 0
    assert machine.cpu_name()


CPUS = """processor : 0
model name\t: Some CPU
flags\t\t: fpu avx2
physical id\t: 0
core id\t\t: 0

processor : 1
model name\t: Some CPU
flags\t\t: fpu avx2
physical id\t: 0
core id\t\t: 0
"""


def test_hyper_threads_are_no_cores(monkeypatch):
    monkeypatch.setattr(machine, "_text", lambda path: CPUS)
    assert machine.physical_cores() == 1
    assert machine.cpu_name() == "Some CPU"
    assert machine.cpu_flags() == {"fpu", "avx2"}


def test_what_a_system_does_not_tell_is_none(monkeypatch):
    monkeypatch.setattr(machine, "_text", lambda path: "")
    assert machine.physical_cores() is None
    assert machine.cpu_flags() == frozenset()
