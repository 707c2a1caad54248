"""Feeds from an iterable, stacked into arrays of samples."""

from collections.abc import Mapping, Sequence

import numpy as np

from onnxcp.data.preprocess import Preprocess
from onnxcp.data.samples import Samples
from onnxcp.data.stored_arrays import array_samples
from onnxcp.errors import DataError
from onnxcp.graph.input_specs import TensorSpec

Item = tuple[Mapping[str, np.ndarray], np.ndarray | None]


def stacked(
    items: Sequence[Item], specs: Sequence[TensorSpec], recipe: Preprocess, source: str
) -> Samples:
    """Samples from feeds with their labels (None if there are none); a feed is a batch.

    Raises:
        DataError: feeds differ in names or shapes, or only some have labels.
    """
    arrays, labels = arrays_of(items, specs, source)
    return array_samples(arrays, labels, specs, recipe, source)


def arrays_of(
    items: Sequence[Item], specs: Sequence[TensorSpec], source: str
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """The arrays [samples, ...] of all inputs, and the labels, None if there are none.

    Raises:
        DataError: feeds differ in names or shapes, or only some have labels.
    """
    names = [s.name for s in specs]
    for feeds, _ in items:
        missing = [name for name in names if name not in feeds]
        if missing:
            raise DataError(
                f"{source}: feeds lack the input {', '.join(missing)}, they have "
                f"{', '.join(feeds)}; name them as the model's inputs"
            )
    counts = [_count(feeds, specs) for feeds, _ in items]
    arrays = {name: _stack(name, items, counts, source) for name in names}
    return arrays, _labels(items, counts, source)


def _count(feeds: Mapping[str, np.ndarray], specs: Sequence[TensorSpec]) -> int:
    """How many samples a feed has.

    The rows of an input whose batch size is free; else the rows if all inputs have as many, and
    one if they differ.
    """
    free = [len(feeds[s.name]) for s in specs if s.has_free_batch and feeds[s.name].ndim]
    if free:
        return free[0]
    sizes = {len(feeds[s.name]) for s in specs if feeds[s.name].ndim}
    return sizes.pop() if len(sizes) == 1 else 1


def _stack(name: str, items: Sequence[Item], counts: Sequence[int], source: str) -> np.ndarray:
    """All rows of an input; whole inputs stacked if they have no row per sample."""
    parts = [feeds[name] for feeds, _ in items]
    are_rows = all(p.ndim and len(p) == n for p, n in zip(parts, counts, strict=True))
    shapes = {part.shape[1:] if are_rows else part.shape for part in parts}
    if len(shapes) > 1:
        shown = " and ".join(map(str, sorted(shapes)))
        raise DataError(
            f"{source}: {name!r} has different shapes, {shown}; give samples of one shape"
        )
    if are_rows:
        return np.concatenate(parts)
    if any(count != 1 for count in counts):
        raise DataError(
            f"{source}: {name!r} does not have one row per sample; give feeds of one sample each"
        )
    return np.stack(parts)


def _labels(items: Sequence[Item], counts: Sequence[int], source: str) -> np.ndarray | None:
    arrays = [labels for _, labels in items if labels is not None]
    if not arrays:
        return None
    if len(arrays) < len(items):
        raise DataError(f"{source}: only some feeds have labels; give labels for all or none")
    if any(len(labels) != n for labels, n in zip(arrays, counts, strict=True)):
        raise DataError(
            f"{source}: a feed has another number of labels than samples; give one per sample"
        )
    try:
        return np.concatenate(arrays)
    except ValueError as error:
        raise DataError(f"{source}: labels differ in shape: {error}") from error
