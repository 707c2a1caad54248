"""How many cores this process may use: not those of the machine, but those that it is pinned to,
and no more than what its control groups let it use at once.

Hyper-threads of one core count once, as they do for ONNX Runtime's own choice: two threads of
one core's multipliers are no faster than one.
"""

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MACHINE, AFFINITY, QUOTA, GIVEN = "machine", "affinity", "quota", "given"
WORDS = {
    MACHINE: "the cores of this machine",
    AFFINITY: "the cores that this process is pinned to",
    QUOTA: "what the quota of its control group allows",
    GIVEN: "as <<threads>> says",
}


@dataclass(frozen=True, slots=True)
class Cores:
    """How many there are to use, and what limits them: a key of `WORDS`. `exact` is the number
    before a quota was rounded down."""

    count: int
    why: str
    exact: float


def usable(root: Path = Path("/"), allowed: Collection[int] | None = None) -> Cores:
    """The cores that this process may use, at least one. `root` is where /proc and /sys are
    found, `allowed` the processors that it may run on; both are for tests."""
    everything = os.cpu_count() or 1
    processors = _affinity(everything) if allowed is None else allowed
    count = max(1, len({_core(root, number) for number in processors}))
    limit = quota(root)
    if limit is not None and limit < count:
        return Cores(max(1, int(limit)), QUOTA, limit)
    return Cores(count, AFFINITY if len(processors) < everything else MACHINE, float(count))


def _affinity(everything: int) -> Collection[int]:
    try:
        return os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return range(everything)


def _core(root: Path, processor: int) -> str:
    """What hyper-threads of one core have in common."""
    folder = root / f"sys/devices/system/cpu/cpu{processor}/topology"
    return _text(folder / "thread_siblings_list") or str(processor)


def quota(root: Path = Path("/")) -> float | None:
    """Processors that the control groups of this process let it use at once: the least of its
    own group and of those around it; None without a limit."""
    limits = [limit for path in _groups(root) if (limit := _limit(path)) is not None]
    return min(limits, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """Folders of the groups that rule processor time, from the innermost to the root's."""
    mounts = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines() or ["0::/"]:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        parts = [part for part in PurePosixPath(group).parts if part not in ("/", "..")]
        tops = ("", "unified") if not controllers else (controllers, "cpu", "cpu,cpuacct")
        for top in dict.fromkeys(tops):
            for depth in range(len(parts), -1, -1):
                yield (mounts / top).joinpath(*parts[:depth])


def _limit(group: Path) -> float | None:
    """Of one group, in version 2 or 1 of Linux' files."""
    numbers = _text(group / "cpu.max").split()
    if not numbers:
        files = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        numbers = [_text(group / name) for name in files]
    if len(numbers) != 2 or not all(re.fullmatch("[1-9][0-9]*", n) for n in numbers):
        return None  # "max", -1, or no such files
    return int(numbers[0]) / int(numbers[1])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
