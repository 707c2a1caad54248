"""Samples from arrays: one row per sample, for every input of the model.

An input whose sizes are all fixed may be stored once for all samples (such as a scale factor), or
as a stack of whole inputs, one per sample.
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

IMAGE_NDIM = 4  # dimensions of a batch of images


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    """The stored array of one input; `is_shared` if it is the same for all samples."""

    spec: TensorSpec
    array: np.ndarray
    recipe: Preprocess
    is_shared: bool

    def rows(self, numbers: list[int]) -> np.ndarray:
        """The preprocessed input for these samples."""
        if self.is_shared:
            return np.asarray(self.array, dtype=self.spec.dtype)
        rows = np.asarray(self.array[numbers])
        dims = self.spec.dims
        if dims and _is_fixed(self.spec) and rows.shape[1:] == dims:
            rows = rows.reshape(-1, *rows.shape[2:])
        return to_input(rows, self.recipe, self.spec)


def array_samples(
    arrays: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    specs: Sequence[TensorSpec],
    recipe: Preprocess,
    source: str,
    *,
    named: str = "label",
) -> Samples:
    """Samples from arrays by input name, or from the only array for the only input.

    `named` is the name under which labels are stored, for messages.

    Raises:
        DataError: names, shapes, dtypes or counts do not fit.
    """
    notes = list[str]()
    if labels is not None:
        labels, note = class_numbers(labels, f"{source}: {named!r}")
        notes += [note] if note else []
    chosen = _named_as_inputs(source, arrays, specs)
    unused = [name for name in arrays if name not in chosen] if len(arrays) > 1 else []
    if unused:
        names = ", ".join(map(repr, unused))
        notes.append(f"{source}: {names}: neither an input of the model nor 'label'; left out")
    shared = _shared(chosen, labels, specs)
    count = _count(source, {n: len(a) for n, a in chosen.items() if n not in shared}, labels, named)
    stored = {
        s.name: _Stored(s, chosen[s.name], _recipe(s.name, chosen, recipe), s.name in shared)
        for s in sorted(specs, key=lambda s: s.name in shared)  # shared arrays last
    }

    def pick(numbers: Sequence[int]) -> Feeds:
        return {name: array.rows(list(numbers)) for name, array in stored.items()}

    samples = Samples(pick, range(count), labels, source, tuple(notes))
    samples.read(0, 1)  # reports samples that do not fit now, not after the fits
    return samples


def _count(source: str, counts: dict[str, int], labels: np.ndarray | None, named: str) -> int:
    if labels is not None:
        counts = {**counts, named: len(labels)}
    if len(set(counts.values())) != 1:
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"{source}: arrays differ in length: {shown}; store one row per sample")
    count = next(iter(counts.values()))
    if not count:
        raise DataError(f"{source}: contains no samples; give at least one")
    return count


def _recipe(name: str, chosen: Mapping[str, np.ndarray], recipe: Preprocess) -> Preprocess:
    """The recipe for one input: none for inputs that are not images beside one that is."""
    has_images = any(array.ndim == IMAGE_NDIM for array in chosen.values())
    is_other = has_images and len(chosen) > 1 and chosen[name].ndim != IMAGE_NDIM
    return PRESETS["none"] if is_other else recipe


def _is_fixed(spec: TensorSpec) -> bool:
    return spec.dims is not None and all(isinstance(d, int) for d in spec.dims)


def _shared(
    chosen: Mapping[str, np.ndarray], labels: np.ndarray | None, specs: Sequence[TensorSpec]
) -> set[str]:
    """Names of inputs that are stored once, in the model's shape, while others have more rows."""
    whole = {s.name for s in specs if _is_fixed(s) and chosen[s.name].shape == s.dims}
    counts = {len(array) for name, array in chosen.items() if name not in whole}
    if labels is not None:
        counts.add(len(labels))
    shared = {n for n in whole if not chosen[n].ndim or (counts and len(chosen[n]) not in counts)}
    return shared if len(shared) < len(chosen) else set()


def _named_as_inputs(
    source: str, arrays: Mapping[str, np.ndarray], specs: Sequence[TensorSpec]
) -> dict[str, np.ndarray]:
    """The array of every input: by name, or the only array for the only input."""
    if not specs:
        raise DataError(f"{source}: the model takes no inputs; leave the data out")
    if len(specs) == 1 and len(arrays) == 1:
        chosen = {specs[0].name: next(iter(arrays.values()))}
    else:
        missing = [s.name for s in specs if s.name not in arrays]
        if missing:
            raise DataError(
                f"{source}: no array for the input {', '.join(missing)}, only "
                f"{', '.join(arrays) or 'none'}; name the arrays as the model's inputs"
            )
        chosen = {s.name: arrays[s.name] for s in specs}
    for spec in specs:
        _refuse_unfit(source, spec, chosen[spec.name])
    return chosen


def _refuse_unfit(source: str, spec: TensorSpec, array: np.ndarray) -> None:
    if array.dtype.kind not in "fiub" or (array.ndim == 0 and spec.dims != ()):
        raise DataError(
            f"{source}: the array {spec.name!r} of {array.dtype} is not a batch of numbers; store "
            "numbers, one row per sample"
        )
    if array.dtype.kind == "f" and spec.dtype.kind in "iu":
        raise DataError(
            f"{source}: {spec.name!r} is {array.dtype}, and the model's input is {spec.dtype}; "
            "convert the array"
        )
