"""Samples from a user's function, given as `module:function`.

The function returns an iterable of feeds (the mappings that `session.run` takes) or of
(feeds, labels) pairs, or an object with `get_next` such as ONNX Runtime's CalibrationDataReader.
Each feed is a batch of one or more samples. All feeds that are used are held in memory.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from onnxcp.data.named_function import named_function
from onnxcp.errors import DataError, UsageError

NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
MAX_FEED_BYTES = 2**33  # of all feeds

Item = tuple[Mapping[str, np.ndarray], np.ndarray | None]


def is_function(source: str) -> bool:
    """Whether a source has the form `module:function`; whether it exists is not checked."""
    return NAME.fullmatch(source) is not None


def items(source: str, limit: int) -> list[Item]:
    """Feeds with their labels (None if there are none): `limit` samples or a few more, or all.

    Raises:
        DataError: the function fails, yields something else than feeds, or more than fits into
            memory.
        UsageError: the function does not exist.
    """
    feeds_and_labels, count, size = list[Item](), 0, 0
    try:
        for yielded in _each(named_function("data", source)()):
            feeds, labels = _item(yielded, source)
            feeds_and_labels.append((feeds, labels))
            count += max((len(a) for a in feeds.values() if a.ndim), default=1)
            size += sum(array.nbytes for array in feeds.values())
            if count >= limit or size > MAX_FEED_BYTES:
                break
    except (DataError, UsageError):
        raise
    except Exception as error:  # a user's code can raise anything
        raise DataError(f"{source}: failed: {type(error).__name__}: {error}") from error
    if size > MAX_FEED_BYTES:
        raise DataError(f"{source}: yields over {MAX_FEED_BYTES / 1e9:.0f} GB; give <<samples=N>>")
    if not feeds_and_labels:
        raise DataError(f"{source}: yields no feeds; return at least one")
    return feeds_and_labels


def _each(returned: Any) -> Iterator[Any]:
    if not hasattr(returned, "get_next"):
        yield from returned
        return
    while (feeds := returned.get_next()) is not None:
        yield feeds


def _item(yielded: Any, source: str) -> Item:
    feeds, labels = yielded if isinstance(yielded, tuple) and len(yielded) == 2 else (yielded, None)
    if not isinstance(feeds, Mapping) or not feeds:
        raise DataError(
            f"{source}: yields {type(feeds).__name__}, not feeds; return mappings of input names "
            "to arrays"
        )
    arrays = {str(name): np.asarray(array) for name, array in feeds.items()}
    return arrays, None if labels is None else np.atleast_1d(np.asarray(labels))
