"""SPECs of samples: a path, or some of the samples there as `PATH[a:b]`."""

import os
import re
from pathlib import Path

from onnxcp.errors import DataError

SLICE = re.compile(r"(.+)\[([0-9]{0,12}):([0-9]{0,12})\]")
NO_LIMIT = 2**62  # samples: more than any source has
LISTINGS = ("labels.csv", "val_map.txt")  # lists of the images in their folder


def parse_spec(source: str) -> tuple[Path, range]:
    """The path of a source, and the numbers of the samples that it names.

    A file whose name looks like `PATH[a:b]` is that file.

    Raises:
        DataError: the source contains a NUL character.
    """
    if "\0" in source:
        raise DataError(f"{source!r}: a path cannot contain a NUL character")
    match = None if Path(source).exists() else SLICE.fullmatch(source)
    if match is None:
        return Path(source), range(NO_LIMIT)
    start, stop = (int(match[k]) if match[k] else default for k, default in ((2, 0), (3, NO_LIMIT)))
    return Path(match[1]), range(start, stop)


def samples_path(path: Path) -> Path:
    """The file or folder that holds the samples: for a list of images, its folder."""
    return path.parent if path.name in LISTINGS else path


def share_samples(one: str, two: str) -> bool:
    """Whether two SPECs can have samples in common: the same path, and ranges that overlap."""
    (first, numbers), (second, other_numbers) = parse_spec(one), parse_spec(two)
    overlaps = max(numbers.start, other_numbers.start) < min(numbers.stop, other_numbers.stop)
    paths = [os.path.realpath(samples_path(path)) for path in (first, second)]
    return paths[0] == paths[1] and overlaps
