"""How many cores this process may use: those in its affinity, up to the quota of its groups.

Hyper-threads of one core count once, as in ONNX Runtime's default: they share the multipliers, so
that two are no faster than one.
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
    """The number of usable cores, and what limits it: a key of `WORDS`.

    `exact` is the number before a quota is rounded down.
    """

    count: int
    why: str
    exact: float


def usable(root: Path = Path("/"), allowed: Collection[int] | None = None) -> Cores:
    """The cores that this process may use, at least one.

    For tests: `root` is the folder of /proc and /sys, `allowed` the processors in the affinity.
    """
    total = os.cpu_count() or 1
    processors = _affinity(total) if allowed is None else allowed
    count = max(1, len({_core(root, number) for number in processors}))
    limit = quota(root)
    if limit is not None and limit < count:
        return Cores(max(1, int(limit)), QUOTA, limit)
    return Cores(count, AFFINITY if len(processors) < total else MACHINE, float(count))


def _affinity(everything: int) -> Collection[int]:
    try:
        return os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return range(everything)


def _core(root: Path, processor: int) -> str:
    """An identifier that the hyper-threads of one core share."""
    folder = root / f"sys/devices/system/cpu/cpu{processor}/topology"
    return _text(folder / "thread_siblings_list") or str(processor)


def quota(root: Path = Path("/")) -> float | None:
    """The least quota of this process's control group and its parents, in processors.

    It can be a fraction. None without a limit.
    """
    limits = [limit for path in _groups(root) if (limit := _limit(path)) is not None]
    return min(limits, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """Folders of the control groups that limit processor time, from the innermost to the root."""
    mounts = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines() or ["0::/"]:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        parts = [part for part in PurePosixPath(group).parts if part not in ("/", "..")]
        hierarchies = ("", "unified") if not controllers else (controllers, "cpu", "cpu,cpuacct")
        for hierarchy in dict.fromkeys(hierarchies):
            for depth in range(len(parts), -1, -1):
                yield (mounts / hierarchy).joinpath(*parts[:depth])


def _limit(group: Path) -> float | None:
    """The quota of one control group, version 2 or 1; None without a limit."""
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
