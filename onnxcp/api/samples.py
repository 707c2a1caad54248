"""Samples as a caller may give them: SPECs as the command line has them, or arrays in memory.

| given | read as |
|---|---|
| a SPEC or a path, or a list of them | the command's `data` |
| `{name: array}` | an .npz: arrays named as the inputs, `label` optional |
| an array | the samples of the only input |
| an iterable of `(inputs, labels)`, as a torch `DataLoader` | batch after batch |
| an object with `get_next`, as a `CalibrationDataReader` | feed after feed, without labels |

Arrays are whatever numpy takes, torch tensors on any device included. Those of an iterable are
batches, first axis the samples; a sample alone, without that axis, is taken where its label is
one number. What is in memory is written into the folder of the call, from where it is read as
any other file.
"""

import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from onnxcp.data.feed_functions import MAX_FEED_BYTES
from onnxcp.data.labels import NAMES
from onnxcp.data.specs import NO_LIMIT
from onnxcp.data.stacked_feeds import Item, arrays_of
from onnxcp.errors import DataError, OnnxcpError, UsageError
from onnxcp.graph import io
from onnxcp.graph.input_specs import TensorSpec


class Reader(Protocol):
    """What ONNX Runtime's CalibrationDataReader promises."""

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        """The next feed; None after the last one."""


Spec: TypeAlias = str | os.PathLike[str]
DataLike: TypeAlias = Spec | Sequence[Spec] | Mapping[str, Any] | Iterable[Any] | Reader
KINDS = (
    "give what the command takes as a path, {name: array}, an iterable of (inputs, labels), or a "
    "CalibrationDataReader"
)


def sample_specs(
    data: DataLike | None,
    keyword: str,
    model: Path,
    folder: Path,
    most: int | None = None,
) -> tuple[str, ...]:
    """The SPECs of samples for a model; what is in memory is written to `folder`, under the name
    of the keyword. Of an iterable no more is read than the first `most` samples need.

    Raises:
        DataError: an iterable that fails, gives nothing or too much, or does not fit the inputs.
        UsageError: not samples at all.
    """
    if data is None:
        return ()
    if isinstance(data, str | os.PathLike):
        return (os.fspath(data),)
    if isinstance(data, list | tuple) and all(isinstance(d, str | os.PathLike) for d in data):
        return tuple(os.fspath(one) for one in data)
    if isinstance(data, Mapping):
        arrays = _named(data, keyword)
    elif hasattr(data, "get_next") or hasattr(data, "__iter__"):
        arrays = _arrays(data, keyword, io.inputs_of(model), NO_LIMIT if most is None else most)
    else:
        raise UsageError(f"{keyword}: {type(data).__name__} holds no samples; {KINDS}")
    path = folder / f"{keyword}.npz"
    _write(path, arrays)
    return (str(path),)


def _named(data: Mapping[str, Any], keyword: str) -> dict[str, np.ndarray]:
    if not data:
        raise DataError(f"{keyword}: holds no arrays; name them as the model's inputs")
    return {str(name): as_array(a, f"{keyword}[{name!r}]") for name, a in data.items()}


def _arrays(
    data: Any, keyword: str, inputs: Sequence[TensorSpec], most: int
) -> dict[str, np.ndarray]:
    if _is_array(data):
        return {_only(inputs, keyword): as_array(data, keyword)}
    arrays, labels = arrays_of(_items(data, keyword, inputs, most), inputs, keyword)
    return arrays if labels is None else {**arrays, _label_name(inputs): labels}


def _items(data: Any, keyword: str, inputs: Sequence[TensorSpec], most: int) -> list[Item]:
    """Feeds with their labels, None without: at least `most` samples, or as many as there are."""
    items, count, size = list[Item](), 0, 0
    try:
        for given in _each(data):
            feeds, labels = _item(given, keyword, inputs)
            items.append((feeds, labels))
            count += max((len(a) for a in feeds.values() if a.ndim), default=1)
            size += sum(array.nbytes for array in feeds.values())
            if count >= most or size > MAX_FEED_BYTES:
                break
    except OnnxcpError:
        raise
    except Exception as error:  # a caller's code raises what it likes
        raise DataError(f"{keyword}: failed: {type(error).__name__}: {error}") from error
    if size > MAX_FEED_BYTES:
        raise DataError(
            f"{keyword}: yields over {MAX_FEED_BYTES / 1e9:.0f} GB; give samples=N, or the path "
            "of files"
        )
    if not items:
        raise DataError(f"{keyword}: gives no samples; an iterator that was used up gives none")
    return items


def _each(data: Any) -> Iterator[Any]:
    if not hasattr(data, "get_next"):
        yield from data
        return
    while (feeds := data.get_next()) is not None:
        yield feeds


def _item(given: Any, keyword: str, inputs: Sequence[TensorSpec]) -> Item:
    is_pair = isinstance(given, tuple | list) and len(given) == 2
    features, labels = given if is_pair else (given, None)
    if isinstance(features, Mapping):
        feeds = {str(n): as_array(a, f"{keyword}: {n!r}") for n, a in features.items()}
        if labels is None:
            labels = feeds.pop(_label_name(inputs), None)
    elif _is_array(features):
        feeds = {_only(inputs, keyword): as_array(features, keyword)}
    else:
        raise DataError(
            f"{keyword}: gives {type(features).__name__}; give (inputs, labels) with inputs an "
            "array, or a mapping of input names to arrays"
        )
    if labels is None:
        return feeds, None
    numbers = as_array(labels, f"{keyword}: labels")
    if numbers.ndim:
        return feeds, numbers
    return _as_batch(feeds, inputs), numbers.reshape(1)


def _as_batch(
    feeds: Mapping[str, np.ndarray], inputs: Sequence[TensorSpec]
) -> dict[str, np.ndarray]:
    """Feeds of a sample alone with the axis of a batch, where they lack it."""
    ranks = {s.name: None if s.dims is None else len(s.dims) for s in inputs}
    return {n: a[None] if ranks.get(n) == a.ndim + 1 else a for n, a in feeds.items()}


def _is_array(values: Any) -> bool:
    """Whether it is an array or a tensor: a list may hold anything."""
    return hasattr(values, "dtype") and hasattr(values, "shape")


def as_array(values: Any, where: str) -> np.ndarray:
    """An array, a tensor on any device, or nested lists of numbers, as a numpy array.

    Raises:
        DataError: they are no numbers.
    """
    for step in ("detach", "cpu"):  # of a torch tensor that needs a gradient, or is on a GPU
        values = getattr(values, step)() if hasattr(values, step) else values
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{where}: not an array of numbers: {error}") from error
    if array.dtype.kind not in "fiub":
        raise DataError(f"{where}: of {array.dtype}, not numbers; convert it")
    return array


def _only(inputs: Sequence[TensorSpec], keyword: str) -> str:
    if len(inputs) == 1:
        return inputs[0].name
    names = ", ".join(s.name for s in inputs)
    raise DataError(
        f"{keyword}: one array for the inputs {names or 'of a model without any'}; give a mapping "
        "of input names to arrays"
    )


def _label_name(inputs: Sequence[TensorSpec]) -> str:
    taken = {s.name for s in inputs}
    return next((name for name in NAMES if name not in taken), NAMES[0])


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """An .npz, which `numpy.savez` cannot write with an array that is named "file"."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
