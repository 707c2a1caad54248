"""How long a run took, and how much of that it lost to other work on the machine.

A run loses time where it could compute and does not: another program has its core, or the host
of a virtual machine does. What tells it depends on what is timed:

- one thread of this process (the CPU provider with one thread): wall time less the thread's
  processor time. Its processor time is what the model costs, whatever else runs.
- several threads, or a device: how long this process's threads waited for a core, as Linux counts
  it (/proc/self/task/*/schedstat). That a thread sleeps until a device is done is no loss. Where
  that cannot be read, a run in which a thread was interrupted counts as disturbed.
- nothing, where the system tells neither: then the spread of the times alone speaks.

Not seen by any of them: a neighbor that shares caches, the other half of a core, or the clock
rate. These fall on all models alike that are run in turns, and leave their ratio.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from onnxcp.runtime.cores import usable
from onnxcp.runtime.providers import Target

TASKS = Path("/proc/self/task")
FINE = 1e-5  # seconds: a clock of processor time that is coarser tells nothing of one run
LOST_SHARE = 0.02  # of a run's time: more makes it a disturbed one
LOST_SECONDS = 50e-6  # what waking up costs, and less than another program ever takes
HOST_SHARE = 0.05  # of all processors' time that the host may take


@dataclass(frozen=True, slots=True)
class Run:
    """One run, in seconds. `processor` is None where it is not what the model costs."""

    wall: float
    processor: float | None = None
    lost: float = 0.0

    @property
    def is_disturbed(self) -> bool:
        """Whether it lost more than can be left out."""
        return self.lost > LOST_SHARE * self.wall + LOST_SECONDS


class Stopwatch:
    """Wall time alone: what is lost is not known. Calling it gives the time in seconds."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._begun = clock, 0.0

    def __call__(self) -> float:
        return self._clock()

    def prepare(self) -> None:
        """Called once all threads of what is timed have started."""

    def start(self) -> None:
        self._begun = self._clock()

    def stop(self) -> Run:
        return Run(self._clock() - self._begun)

    def host_share(self) -> float:
        """What the host of this virtual machine took of all processors' time, where that does
        not show in single runs."""
        return 0.0


class OneThread(Stopwatch):
    """What computes on the calling thread alone."""

    def __init__(self) -> None:
        super().__init__()
        self._used = 0.0

    def start(self) -> None:
        self._used = time.thread_time()
        super().start()

    def stop(self) -> Run:
        wall = super().stop().wall
        used = time.thread_time() - self._used
        return Run(wall, used, wall - used)


class ManyThreads(Stopwatch):
    """What waits for several threads: by the time that those waited for a core which have computed
    since the last look. The others are not asked: a process has a hundred of them, and that takes
    as long as a small model, in which a device or a cache forgets what it was doing.
    """

    def __init__(self, tasks: Path = TASKS) -> None:
        super().__init__()
        self._tasks, self._files, self._waited = tasks, list[int](), 0.0
        self._before, self._used = stolen(), _used(tasks)

    def __del__(self) -> None:
        for file in self._files:
            os.close(file)

    def prepare(self) -> None:
        self.__del__()
        self._files, used = [], _used(self._tasks)
        for task, nanoseconds in used.items():
            is_active = nanoseconds > self._used.get(task, 0)
            if is_active or task.name == str(threading.get_native_id()):
                with contextlib.suppress(OSError):  # it has ended
                    self._files.append(os.open(task / "schedstat", os.O_RDONLY))
        self._before, self._used = stolen(), used

    def start(self) -> None:
        self._waited = self._delay()
        super().start()

    def stop(self) -> Run:
        wall = super().stop().wall
        return Run(wall, None, self._delay() - self._waited)

    def _delay(self) -> float:
        return sum(map(_waited, self._files))

    def host_share(self) -> float:
        (then, all_then), (now, all_now) = self._before, stolen()
        return (now - then) / (all_now - all_then) if all_now > all_then else 0.0


def _used(tasks: Path) -> dict[Path, int]:
    """Nanoseconds that every thread has computed so far."""
    used = {}
    for task in tasks.iterdir() if tasks.is_dir() else ():
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended
            used[task] = int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return used


def _waited(file: int) -> float:
    """Seconds that a thread could run and had no core, so far; 0 once it has ended."""
    with contextlib.suppress(OSError):
        return int(os.pread(file, 64, 0).split()[1]) / 1e9
    return 0.0


class Interruptions(Stopwatch):
    """What waits for several threads, where only their interruptions are counted."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def start(self) -> None:
        self._count = _interruptions()
        super().start()

    def stop(self) -> Run:
        wall = super().stop().wall
        return Run(wall, None, wall if _interruptions() > self._count else 0.0)


def _interruptions() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def stopwatch(target: Target) -> Stopwatch:
    """The one that knows most of what runs on a target. Threads that are more than can run at
    once, because they were asked for, wait for each other: that is no other work."""
    if target.provider.name == "cpu" and target.count > usable().count:
        return Stopwatch()
    if target.is_one_thread:
        fine = time.get_clock_info("thread_time").resolution <= FINE
        return OneThread() if fine else Stopwatch()
    if (TASKS / str(os.getpid()) / "schedstat").is_file():
        return ManyThreads()
    try:
        _interruptions()
    except ImportError:  # not a Unix
        return Stopwatch()
    return Interruptions()


def stolen(stat: Path = Path("/proc/stat")) -> tuple[float, float]:
    """Seconds that the host of this virtual machine took so far, and all that processors had;
    zeros where the system does not tell."""
    try:
        with stat.open(encoding="ascii") as file:
            counts = [float(word) for word in file.readline().split()[1:9]]
        return counts[7] / os.sysconf("SC_CLK_TCK"), sum(counts) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0, 0.0
