"""Which samples a SPEC names: a path, or a part of what lies there as `PATH[a:b]`."""

import os
import re
from pathlib import Path

from onnxcp.errors import DataError

SLICE = re.compile(r"(.+)\[([0-9]{0,12}):([0-9]{0,12})\]")
EVERYTHING = 2**62
LISTINGS = ("labels.csv", "val_map.txt")  # that name the images of the folder they lie in


def place(source: str) -> tuple[Path, range]:
    """The path of a source and which of its samples are meant.

    Raises:
        DataError: the source holds a character that no path has.
    """
    if "\0" in source:
        raise DataError(f"{source!r}: a path cannot hold a NUL character")
    found = None if Path(source).exists() else SLICE.fullmatch(source)
    if found is None:
        return Path(source), range(EVERYTHING)
    start, stop = (int(found[k]) if found[k] else plain for k, plain in ((2, 0), (3, EVERYTHING)))
    return Path(found[1]), range(start, stop)


def home(path: Path) -> Path:
    """Where samples lie: of a list of images its folder."""
    return path.parent if path.name in LISTINGS else path


def share_samples(one: str, two: str) -> bool:
    """Whether two sources have samples in common."""
    (first, mine), (second, yours) = place(one), place(two)
    apart = max(mine.start, yours.start) >= min(mine.stop, yours.stop)
    return os.path.realpath(home(first)) == os.path.realpath(home(second)) and not apart
