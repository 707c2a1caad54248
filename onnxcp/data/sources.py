"""Calibration and evaluation samples, from whatever `--data` names.

| SPEC | samples |
|---|---|
| `data.npz` | arrays named as the model's inputs, `label` optional |
| `data.npy` | an array for the only input |
| a folder of images | see `image_folders`, for labels too |
| a list in such a folder | `labels.csv` or `val_map.txt`, by name |
| a folder of `test_data_set_*` | see `onnx_test_data` |
| `module:function` | see `feed_functions` |

`Samples` hands out feeds in batches, preprocessed when asked for, so that a folder of any
size is read with bounded memory.
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
from onnxcp.data.specs import EVERYTHING, LISTINGS, place
from onnxcp.data.stacked_feeds import stacked
from onnxcp.data.stored_arrays import array_samples
from onnxcp.data.synthetic import synthetic
from onnxcp.errors import DataError
from onnxcp.graph.input_specs import Feeds, TensorSpec

__all__ = ["join", "load", "synthetic"]

KINDS = (
    "give an .npz or .npy file, a folder of images, a folder of test_data_set_*, or module:function"
)


def load(
    source: str, specs: Sequence[TensorSpec], recipe: Preprocess, most: int = EVERYTHING
) -> Samples:
    """Samples for a model's inputs, of which no more than the first `most` are needed;
    `PATH[a:b]` are some of them, from number a on, the first being 0, up to b, which is not one
    of them.

    Raises:
        DataError: unreadable, empty, or names, shapes, dtypes or counts that do not fit.
        UsageError: a function that is not there.
    """
    path, part = place(source)
    if part != range(EVERYTHING):
        needed = min(part.stop, part.start + most)
        return _part(load(str(path), specs, recipe, needed), range(part.start, needed), source)
    if not os.path.lexists(path) and feed_functions.is_function(source):
        return stacked(feed_functions.items(source, most), specs, recipe, source)
    if path.is_dir():
        return _folder(path, specs, recipe, most)
    _refuse_irregular(path)
    if path.suffix == ".npz":
        return _npz(path, specs, recipe, most)
    if path.suffix == ".npy":
        return array_samples({path.stem: archives.read_npy(path)}, None, specs, recipe, str(path))
    if path.name in LISTINGS:
        return image_samples(path.parent, specs, recipe, most, listing=path)
    raise DataError(f"{source}: not samples; {KINDS}")


def _refuse_irregular(path: Path) -> None:
    """Raises DataError for what is not a file: reading a pipe would wait forever."""
    if path.is_file():
        return
    if path.is_symlink() and not path.exists():
        raise DataError(f"{path}: a link that leads nowhere; {KINDS}")
    if os.path.lexists(path):
        raise DataError(f"{path}: neither a file nor a folder; {KINDS}")
    raise DataError(f"{path}: no such file; {KINDS}")


def _folder(path: Path, specs: Sequence[TensorSpec], recipe: Preprocess, most: int) -> Samples:
    sets = onnx_test_data.data_sets(path)
    if not sets:
        return image_samples(path, specs, recipe, most)
    feeds = onnx_test_data.read_sets(sets[:most], specs)
    return stacked([(fed, None) for fed in feeds], specs, recipe, str(path))


def _npz(path: Path, specs: Sequence[TensorSpec], recipe: Preprocess, most: int) -> Samples:
    arrays = dict(archives.read_npz(path, most))
    inputs = {s.name for s in specs}
    name = next((n for n in NAMES if n in arrays and n not in inputs), None)
    labels = None if name is None else arrays.pop(name)
    return array_samples(arrays, labels, specs, recipe, str(path), named=name or "label")


def _part(samples: Samples, part: range, source: str) -> Samples:
    kept = samples.first(part.stop)
    if part.start >= len(kept):
        raise DataError(f"{source}: no samples; there are {len(samples)}, counted from 0")
    return replace(kept.after(part.start), source=source)


def join(parts: Sequence[Samples]) -> Samples:
    """Several sources as one.

    Raises:
        DataError: some have labels and some do not, or labels of another shape.
    """
    if len(parts) == 1:
        return parts[0]
    kinds = {p.labels.shape[1:] if p.labels is not None else None for p in parts}
    if len(kinds) > 1:
        names = ", ".join(p.source for p in parts)
        raise DataError(f"{names}: some have labels and some none, or others; give one kind")
    ends = np.cumsum([len(p) for p in parts])
    labelled = [p.labels for p in parts if p.labels is not None]
    labels = np.concatenate(labelled) if labelled else None

    def pick(numbers: Sequence[int]) -> Feeds:
        wanted = np.asarray(numbers)
        owner = np.searchsorted(ends, wanted, side="right")
        order = np.argsort(owner, kind="stable")
        pieces = [
            part.pick([part.numbers[n - end + len(part)] for n in wanted[owner == which]])
            for which, (part, end) in enumerate(zip(parts, ends, strict=True))
            if (owner == which).any()
        ]
        back = np.argsort(order)
        return {name: _joined([p[name] for p in pieces], back) for name in pieces[0]}

    source = ", ".join(p.source for p in parts)
    notes = tuple(note for p in parts for note in p.notes)
    return Samples(pick, range(int(ends[-1])), labels, source, notes)


def _joined(pieces: Sequence[np.ndarray], order: np.ndarray) -> np.ndarray:
    """Rows of several sources in order; an input that all samples share stays as it is."""
    whole: np.ndarray = pieces[0]
    if len(pieces) == 1 and len(whole) != len(order):
        return whole
    joined: np.ndarray = np.concatenate(pieces)[order]
    return joined
