"""Samples that a user's function gives: `module:function`.

It returns feeds one after the other, as `session.run` takes them, each alone or with its labels
as (feeds, labels); or an object with `get_next`, as ONNX Runtime's CalibrationDataReader has it.
Feeds are batches of one sample or more. All that are used are held in memory.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from onnxcp.data.named_function import named_function
from onnxcp.errors import DataError, UsageError

NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
MOST_BYTES = 2**33  # of all feeds

Item = tuple[Mapping[str, np.ndarray], np.ndarray | None]


def is_function(source: str) -> bool:
    """Whether a source is written as `module:function`."""
    return NAME.fullmatch(source) is not None


def items(source: str, most: int) -> list[Item]:
    """Feeds with their labels, None without, of at least `most` samples or as many as there are.

    Raises:
        DataError: the function fails, or gives what are no feeds, or too many to hold.
        UsageError: there is no such function.
    """
    made, count, size = list[Item](), 0, 0
    try:
        for given in _each(named_function("--data", source)()):
            feeds, labels = _item(given, source)
            made.append((feeds, labels))
            count += max((len(a) for a in feeds.values() if a.ndim), default=1)
            size += sum(array.nbytes for array in feeds.values())
            if count >= most or size > MOST_BYTES:
                break
    except (DataError, UsageError):
        raise
    except Exception as error:  # a user's code raises what it likes
        raise DataError(f"{source}: failed: {type(error).__name__}: {error}") from error
    if size > MOST_BYTES:
        raise DataError(f"{source}: gives over {MOST_BYTES / 1e9:.0f} GB; give --samples N")
    if not made:
        raise DataError(f"{source}: gives no feeds; return one at least")
    return made


def _each(given: Any) -> Iterator[Any]:
    if not hasattr(given, "get_next"):
        yield from given
        return
    while (feeds := given.get_next()) is not None:
        yield feeds


def _item(given: Any, source: str) -> Item:
    feeds, labels = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    if not isinstance(feeds, Mapping) or not feeds:
        raise DataError(
            f"{source}: gives {type(feeds).__name__}, not feeds; return mappings of input names "
            "to arrays"
        )
    arrays = {str(name): np.asarray(array) for name, array in feeds.items()}
    return arrays, None if labels is None else np.atleast_1d(np.asarray(labels))
