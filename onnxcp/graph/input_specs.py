"""The inputs of a model, and their concrete shapes in a run.

A dimension is a number, a name ("N", "height"), or None if the model does not state it. Shapes are
tuples of numbers, batch first, in the model's layout.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxcp.errors import UsageError

Dim = int | str | None
Shape = tuple[int, ...]
Feeds = Mapping[str, np.ndarray]

MOST_ELEMENTS = 2**31  # of one input: more is a typing error, not an image


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input; `dims` is None if the number of dimensions is unknown."""

    name: str
    dtype: np.dtype
    dims: tuple[Dim, ...] | None

    @property
    def has_free_batch(self) -> bool:
        return bool(self.dims) and not isinstance(self.dims[0], int)  # type: ignore[index]

    def text(self) -> str:
        if self.dims is None:
            return f"{self.name}: any shape"
        if not self.dims:
            return f"{self.name}: scalar"
        return f"{self.name}: {'x'.join('?' if d is None else str(d) for d in self.dims)}"


def parse_shape(text: str) -> tuple[str, Shape]:
    """`name:1x3x224x224` as (name, shape); the name may contain colons.

    Raises:
        UsageError: there is no colon, or a size is not a positive number.
    """
    name, _, sizes = text.rpartition(":")
    try:
        shape = tuple(int(size) for size in sizes.lower().split("x"))
    except ValueError:
        shape = (0,)
    if not name or min(shape) < 1:
        raise UsageError(f"<<input_shape={text!r}>>: write it as name:1x3x224x224")
    return name, shape


def concrete_shapes(
    specs: Sequence[TensorSpec],
    *,
    batch: int | None = None,
    overrides: Mapping[str, Shape] | None = None,
    samples: Mapping[str, Shape] | None = None,
) -> dict[str, Shape]:
    """A shape for every input: from `overrides`, else the model, else one sample's shape.

    A free first dimension is the batch: `batch`, or 1. `samples` holds shapes without it.

    Raises:
        UsageError: an override names no input or contradicts the model, a dimension is zero or
            absurd, or a dimension is unknown; names it, and the option to pass.
    """
    overrides, samples = overrides or {}, samples or {}
    _refuse_unknown(specs, overrides)
    return {s.name: _concrete(s, batch, overrides.get(s.name), samples.get(s.name)) for s in specs}


def known_shapes(
    specs: Sequence[TensorSpec],
    *,
    batch: int | None = None,
    overrides: Mapping[str, Shape] | None = None,
) -> dict[str, Shape]:
    """Like `concrete_shapes`, without inputs of unknown shape."""
    given = overrides or {}
    _refuse_unknown(specs, given)
    found: dict[str, Shape] = {}
    for spec in specs:
        mine = {n: s for n, s in given.items() if n == spec.name}
        if mine or _is_fixed(spec):
            found |= concrete_shapes([spec], batch=batch, overrides=mine)
    return found


def _is_fixed(spec: TensorSpec) -> bool:
    return spec.dims is not None and all(isinstance(d, int) for d in spec.dims[1:])


def _refuse_unknown(specs: Sequence[TensorSpec], overrides: Mapping[str, Shape]) -> None:
    for name in overrides:
        if name not in {s.name for s in specs}:
            inputs = ", ".join(s.text() for s in specs)
            raise UsageError(f"<<input_shape={name}>>: no such input; the model takes {inputs}")


def _concrete(
    spec: TensorSpec, batch: int | None, override: Shape | None, sample: Shape | None
) -> Shape:
    if override is not None:
        _refuse_mismatch(spec, override, batch)
        return _refuse_absurd(spec, override)
    if spec.dims is None:
        raise UsageError(f"input {spec.text()}: pass <<input_shape={spec.name}:1x3x224x224>>")
    sizes = [_size(spec, axis, batch, sample) for axis in range(len(spec.dims))]
    return _refuse_absurd(spec, tuple(sizes))


def _size(spec: TensorSpec, axis: int, batch: int | None, sample: Shape | None) -> int:
    assert spec.dims is not None
    dim = spec.dims[axis]
    if isinstance(dim, int):
        if axis == 0 and batch not in (None, dim) and len(spec.dims) > 1:
            raise UsageError(
                f"<<batch={batch}>>: input {spec.text()} has a fixed batch of {dim}; leave it out"
            )
        return dim
    if axis == 0:
        return batch or 1
    if sample is not None and len(sample) == len(spec.dims) - 1:
        return sample[axis - 1]
    named = f"'{dim}'" if dim else "unnamed"
    shape = "x".join(str(d) if isinstance(d, int) else "?" for d in spec.dims)
    raise UsageError(
        f"input {spec.text()}: dimension {axis} ({named}) is dynamic and nothing fixes it; "
        f"pass <<data>>, or <<input_shape={spec.name}:{shape}>> with a number for each ?"
    )


def _refuse_mismatch(spec: TensorSpec, shape: Shape, batch: int | None) -> None:
    given = f"<<input_shape={spec.name}:{'x'.join(map(str, shape))}>>"
    dims = (None,) * len(shape) if spec.dims is None else spec.dims
    fits = len(dims) == len(shape) and all(
        not isinstance(d, int) or d == size for d, size in zip(dims, shape, strict=True)
    )
    if not fits:
        raise UsageError(
            f"{given} does not fit the input {spec.text()}; keep its rank and its fixed sizes"
        )
    if batch not in (None, shape[0]) and len(shape) > 1:
        raise UsageError(f"{given} and <<batch={batch}>> contradict each other: give one of them")


def _refuse_absurd(spec: TensorSpec, shape: Shape) -> Shape:
    size = "no elements" if min(shape, default=1) < 1 else f"over {MOST_ELEMENTS} elements"
    if min(shape, default=1) < 1 or math.prod(shape) > MOST_ELEMENTS:
        dynamic = spec.dims is None or not all(isinstance(d, int) for d in spec.dims)
        remedy = "pass <<input_shape>> with" if dynamic else "export the model with"
        raise UsageError(
            f"input {spec.text()}: a shape of {'x'.join(map(str, shape))} has {size}; "
            f"{remedy} the real one"
        )
    return shape
