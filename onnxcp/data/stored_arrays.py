"""Samples from arrays: one row a sample, for every input of the model.

An input whose sizes are all fixed may be stored once for all samples (as a scale factor is), or
as a stack of whole inputs, one for every sample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxcp.data.labels import class_numbers
from onnxcp.data.preprocess import Preprocess, to_input
from onnxcp.data.preset_table import PRESETS
from onnxcp.data.samples import Samples
from onnxcp.errors import DataError
from onnxcp.graph.input_specs import Feeds, TensorSpec

IMAGE = 4  # dimensions of a batch of images


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    """The array of one input. `is_shared` says that it is one for all samples."""

    spec: TensorSpec
    array: np.ndarray
    recipe: Preprocess
    is_shared: bool

    def rows(self, numbers: list[int]) -> np.ndarray:
        """What the model is fed for some samples."""
        if self.is_shared:
            return np.asarray(self.array, dtype=self.spec.dtype)
        taken = np.asarray(self.array[numbers])
        dims = self.spec.dims
        if dims and _is_fixed(self.spec) and taken.shape[1:] == dims:
            taken = taken.reshape(-1, *taken.shape[2:])
        return to_input(taken, self.recipe, self.spec)


def array_samples(
    arrays: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    specs: Sequence[TensorSpec],
    recipe: Preprocess,
    source: str,
    *,
    named: str = "label",
) -> Samples:
    """Samples of arrays by input name, or of the only array for the only input; `labels` are
    stored under the name `named`.

    Raises:
        DataError: names, shapes, dtypes or counts that do not fit.
    """
    notes = list[str]()
    if labels is not None:
        labels, note = class_numbers(labels, f"{source}: {named!r}")
        notes += [note] if note else []
    chosen = _named_as_inputs(source, arrays, specs)
    left = [name for name in arrays if name not in chosen] if len(arrays) > 1 else []
    if left:
        what = ", ".join(map(repr, left))
        notes.append(f"{source}: {what}: neither an input of the model nor 'label', so left out")
    shared = _shared(chosen, labels, specs)
    count = _count(source, {n: len(a) for n, a in chosen.items() if n not in shared}, labels, named)
    stored = {
        s.name: _Stored(s, chosen[s.name], _recipe(s.name, chosen, recipe), s.name in shared)
        for s in sorted(specs, key=lambda s: s.name in shared)  # what counts samples comes first
    }

    def pick(numbers: Sequence[int]) -> Feeds:
        return {name: one.rows(list(numbers)) for name, one in stored.items()}

    samples = Samples(pick, range(count), labels, source, tuple(notes))
    samples.read(0, 1)  # whatever does not fit is said now, not after the fits
    return samples


def _count(source: str, counts: dict[str, int], labels: np.ndarray | None, named: str) -> int:
    if labels is not None:
        counts = {**counts, named: len(labels)}
    if len(set(counts.values())) != 1:
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"{source}: arrays of unequal length: {shown}; store one row a sample")
    count = next(iter(counts.values()))
    if not count:
        raise DataError(f"{source}: holds no samples; give at least one")
    return count


def _recipe(name: str, chosen: Mapping[str, np.ndarray], recipe: Preprocess) -> Preprocess:
    """Beside images other inputs are taken as they are."""
    has_images = any(array.ndim == IMAGE for array in chosen.values())
    is_other = has_images and len(chosen) > 1 and chosen[name].ndim != IMAGE
    return PRESETS["none"] if is_other else recipe


def _is_fixed(spec: TensorSpec) -> bool:
    return spec.dims is not None and all(isinstance(d, int) for d in spec.dims)


def _shared(
    chosen: Mapping[str, np.ndarray], labels: np.ndarray | None, specs: Sequence[TensorSpec]
) -> set[str]:
    """Inputs that are stored once, in just the model's shape, where others have more rows."""
    whole = {s.name for s in specs if _is_fixed(s) and chosen[s.name].shape == s.dims}
    counts = {len(array) for name, array in chosen.items() if name not in whole}
    if labels is not None:
        counts.add(len(labels))
    apart = {n for n in whole if not chosen[n].ndim or (counts and len(chosen[n]) not in counts)}
    return apart if len(apart) < len(chosen) else set()


def _named_as_inputs(
    source: str, arrays: Mapping[str, np.ndarray], specs: Sequence[TensorSpec]
) -> dict[str, np.ndarray]:
    """The array of every input: by name, or the only one for the only input."""
    if not specs:
        raise DataError(f"{source}: the model takes no inputs; leave the data out")
    if len(specs) == 1 and len(arrays) == 1:
        chosen = {specs[0].name: next(iter(arrays.values()))}
    else:
        missing = [s.name for s in specs if s.name not in arrays]
        if missing:
            raise DataError(
                f"{source}: no array for input {', '.join(missing)}, only "
                f"{', '.join(arrays) or 'none'}; name the arrays as the model's inputs"
            )
        chosen = {s.name: arrays[s.name] for s in specs}
    for spec in specs:
        _refuse_unfit(source, spec, chosen[spec.name])
    return chosen


def _refuse_unfit(source: str, spec: TensorSpec, array: np.ndarray) -> None:
    if array.dtype.kind not in "fiub" or (array.ndim == 0 and spec.dims != ()):
        raise DataError(f"{source}: array {spec.name!r} of {array.dtype} is no batch of numbers")
    if array.dtype.kind == "f" and spec.dtype.kind in "iu":
        raise DataError(
            f"{source}: {spec.name!r} is {array.dtype}, the model's input {spec.dtype}; "
            "convert the array"
        )
