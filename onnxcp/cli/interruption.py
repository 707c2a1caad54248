"""What a run that was interrupted left, in words."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from onnxcp.storage.workdir import count_finished


def told(
    output: Path, others: Sequence[Path] = (), work_dir: Path | None = None
) -> Callable[[], str]:
    """What to say if the run that begins now is interrupted; `output` and `others` are what it
    may write."""
    before = {path: _seen(path) for path in (output, *others)}

    def say() -> str:
        written = [str(path) for path, seen in before.items() if _seen(path) != seen]
        if written:
            return f"interrupted after {', '.join(written)} had been written"
        there = f": {output} is as it was" if before[output] is not None else ""
        return f"interrupted; no output was written{there}{_kept(work_dir)}"

    return say


def _seen(path: Path) -> tuple[int, int, int] | None:
    """What tells a file from another one under the same name."""
    try:
        about = os.lstat(path)
    except (OSError, ValueError):
        return None
    return about.st_dev, about.st_ino, about.st_mtime_ns


def _kept(work_dir: Path | None) -> str:
    count = 0 if work_dir is None else count_finished(work_dir)
    if not count:
        return ""
    results = f"{count} finished result{'s' * (count != 1)}"
    return f"; {work_dir} holds {results}: the same command with --resume goes on from there"
