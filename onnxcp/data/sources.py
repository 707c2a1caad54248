"""Samples from the sources that `data`, `calibration` and `train` name.

| SPEC | samples |
|---|---|
| `data.npz` | arrays named as the model's inputs; `label` is optional |
| `data.npy` | an array for the only input |
| a folder of images | with labels, see `image_folders` |
| `labels.csv` or `val_map.txt` | the images that it lists, in its folder |
| a folder of `test_data_set_*` | see `onnx_test_data` |
| `module:function` | see `feed_functions` |

`Samples` reads and preprocesses one batch at a time, so that a folder of any size needs bounded
memory.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxcp.data import archives, feed_functions, onnx_test_data
from onnxcp.data.image_folders import image_samples
from onnxcp.data.labels import NAMES
from onnxcp.data.preprocess import Preprocess
from onnxcp.data.samples import Samples
from onnxcp.data.specs import LISTINGS, NO_LIMIT, parse_spec
from onnxcp.data.stacked_feeds import stacked
from onnxcp.data.stored_arrays import array_samples
from onnxcp.data.synthetic import synthetic
from onnxcp.errors import DataError
from onnxcp.graph.input_specs import Feeds, TensorSpec

__all__ = ["join", "load", "synthetic"]

SOURCE_KINDS = (
    "give an .npz or .npy file, a folder of images, a folder of test_data_set_*, or module:function"
)


def load(
    source: str, specs: Sequence[TensorSpec], recipe: Preprocess, limit: int = NO_LIMIT
) -> Samples:
    """Samples for a model's inputs; only the first `limit` are guaranteed.

    `PATH[a:b]` names the samples from number a up to but without b, counted from 0.

    Raises:
        DataError: the source is unreadable or empty, or its names, shapes, dtypes or counts do
            not fit.
        UsageError: the function does not exist.
    """
    path, part = parse_spec(source)
    if part != range(NO_LIMIT):
        needed = min(part.stop, part.start + limit)
        return _part(load(str(path), specs, recipe, needed), range(part.start, needed), source)
    if not os.path.lexists(path) and feed_functions.is_function(source):
        return stacked(feed_functions.items(source, limit), specs, recipe, source)
    if path.is_dir():
        return _folder(path, specs, recipe, limit)
    _refuse_irregular(path)
    if path.suffix == ".npz":
        return _npz(path, specs, recipe, limit)
    if path.suffix == ".npy":
        return array_samples({path.stem: archives.read_npy(path)}, None, specs, recipe, str(path))
    if path.name in LISTINGS:
        return image_samples(path.parent, specs, recipe, limit, listing=path)
    raise DataError(f"{source}: not samples; {SOURCE_KINDS}")


def _refuse_irregular(path: Path) -> None:
    """Raises DataError for what is not a regular file: reading a pipe would wait forever."""
    if path.is_file():
        return
    if path.is_symlink() and not path.exists():
        raise DataError(f"{path}: a broken link; {SOURCE_KINDS}")
    if os.path.lexists(path):
        raise DataError(f"{path}: neither a file nor a folder; {SOURCE_KINDS}")
    raise DataError(f"{path}: no such file; {SOURCE_KINDS}")


def _folder(path: Path, specs: Sequence[TensorSpec], recipe: Preprocess, limit: int) -> Samples:
    sets = onnx_test_data.data_sets(path)
    if not sets:
        return image_samples(path, specs, recipe, limit)
    feeds = onnx_test_data.read_sets(sets[:limit], specs)
    return stacked([(fed, None) for fed in feeds], specs, recipe, str(path))


def _npz(path: Path, specs: Sequence[TensorSpec], recipe: Preprocess, limit: int) -> Samples:
    arrays = dict(archives.read_npz(path, limit))
    inputs = {s.name for s in specs}
    name = next((n for n in NAMES if n in arrays and n not in inputs), None)
    labels = None if name is None else arrays.pop(name)
    return array_samples(arrays, labels, specs, recipe, str(path), named=name or "label")


def _part(samples: Samples, part: range, source: str) -> Samples:
    until_stop = samples.first(part.stop)
    if part.start >= len(until_stop):
        raise DataError(f"{source}: no samples; the source has {len(samples)}, numbered from 0")
    return replace(until_stop.after(part.start), source=source)


def join(parts: Sequence[Samples]) -> Samples:
    """The samples of several sources, one source after the other.

    Raises:
        DataError: only some sources have labels, or labels differ in shape.
    """
    if len(parts) == 1:
        return parts[0]
    kinds = {p.labels.shape[1:] if p.labels is not None else None for p in parts}
    if len(kinds) > 1:
        names = ", ".join(p.source for p in parts)
        raise DataError(
            f"{names}: only some have labels, or labels differ in shape; give sources of one kind"
        )
    ends = np.cumsum([len(p) for p in parts])
    label_arrays = [p.labels for p in parts if p.labels is not None]
    labels = np.concatenate(label_arrays) if label_arrays else None

    def pick(numbers: Sequence[int]) -> Feeds:
        positions = np.asarray(numbers)
        part_of = np.searchsorted(ends, positions, side="right")
        order = np.argsort(part_of, kind="stable")
        pieces = [
            part.pick([part.numbers[n - end + len(part)] for n in positions[part_of == index]])
            for index, (part, end) in enumerate(zip(parts, ends, strict=True))
            if (part_of == index).any()
        ]
        original_order = np.argsort(order)
        return {name: _joined([p[name] for p in pieces], original_order) for name in pieces[0]}

    source = ", ".join(p.source for p in parts)
    notes = tuple(note for p in parts for note in p.notes)
    return Samples(pick, range(int(ends[-1])), labels, source, notes)


def _joined(pieces: Sequence[np.ndarray], order: np.ndarray) -> np.ndarray:
    """Rows of several sources in the given order; an input shared by all samples stays as is."""
    whole: np.ndarray = pieces[0]
    if len(pieces) == 1 and len(whole) != len(order):
        return whole
    joined: np.ndarray = np.concatenate(pieces)[order]
    return joined
