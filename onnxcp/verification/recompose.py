"""The convolution that a chain of stages stands for, composed from the stages alone.

It shares no code with `forms`, whose reconstructions it checks. A chain is one convolution if for
every dimension of the window at most one stage has a window, a stride or padding. Stages before
that one only mix channels, and only the last has a bias, so that zeros stay zeros and padding can
be applied later. The composition is exact, in float64.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from onnxcp.chain import Chain, Geometry, Kernel, Stage


def misfit(chain: Chain) -> str | None:
    """Why a chain is not one convolution; None if it is."""
    for before, stage in itertools.pairwise(chain):
        given, taken = len(before.weight), stage.weight.shape[1] * stage.group
        if given != taken:
            return (
                f"stage {stage.role!r} takes {taken} channels where {before.role!r} gives {given}"
            )
        if before.bias is not None:
            return f"stage {before.role!r} has a bias, which only the last one may have"
    for dimension in range(chain[0].geometry.dimensions):
        moving = [stage.role for stage in chain if _moves(stage, dimension)]
        if len(moving) > 1:
            return f"stages {' and '.join(map(repr, moving))} move along the same dimension"
    return None


def _moves(stage: Stage, dimension: int) -> bool:
    found = stage.geometry
    pads = found.pads[dimension :: found.dimensions]
    return stage.weight.shape[2:][dimension] > 1 or found.strides[dimension] > 1 or any(pads)


def geometry(chain: Chain) -> Geometry:
    """The geometry of the composed kernel; dilations are 1 where its window is 1."""
    count = chain[0].geometry.dimensions
    strides, dilations, pads = [1] * count, [1] * count, [0] * 2 * count
    for stage in chain:
        for k in range(count):
            strides[k] *= stage.geometry.strides[k]
            pads[k] += stage.geometry.pads[k]
            pads[k + count] += stage.geometry.pads[k + count]
            if stage.weight.shape[2:][k] > 1:
                dilations[k] = stage.geometry.dilations[k]
    return Geometry(tuple(strides), tuple(dilations), tuple(pads), dimensions=count)


def groups(chain: Chain) -> int:
    """The number of groups: parts of the channels that the chain never mixes."""
    return math.gcd(*(stage.group for stage in chain))


def shape(chain: Chain) -> tuple[int, ...]:
    """The shape of the composed kernel: (T, S / groups, *window)."""
    inputs = chain[0].weight.shape[1] * chain[0].group
    windows = zip(*(stage.weight.shape[2:] for stage in chain), strict=True)
    return (len(chain[-1].weight), inputs // groups(chain), *map(max, windows))


def kernel(chain: Chain) -> Kernel:
    """The composed kernel [T, S / groups, *window], in float64."""
    parts = groups(chain)
    stages = [
        list(zip(np.split(s.weight, parts), [s.group // parts] * parts, strict=True)) for s in chain
    ]
    return _joined([_composed(part) for part in zip(*stages, strict=True)])


def _composed(stages: Sequence[tuple[np.ndarray, int]]) -> np.ndarray:
    """The composed kernel of weights, each with its number of groups, without groups."""
    weight, group = stages[0]
    found = _spread(weight.astype(np.float64), group)
    for weight, group in stages[1:]:
        pairs = zip(np.split(weight, group), np.split(found, group), strict=True)
        found = _joined([_after(w.astype(np.float64), read) for w, read in pairs])
    return found


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of all parts; a single part is not copied, since it may be large."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _spread(weight: np.ndarray, group: int) -> np.ndarray:
    """The same weight without groups, with zeros between channels of different groups."""
    rows, columns = len(weight) // group, weight.shape[1]
    full = np.zeros((len(weight), columns * group, *weight.shape[2:]))
    for g in range(group):
        across = slice(g * columns, (g + 1) * columns)
        full[g * rows : (g + 1) * rows, across] = weight[g * rows : (g + 1) * rows]
    return full


def _after(weight: np.ndarray, read: np.ndarray) -> np.ndarray:
    """A kernel [t, r, *window] on what a kernel [r, s, *window] gives: along each dimension one
    of the two windows is 1, so the window of both is their product."""
    count = weight.ndim - 2
    product = np.tensordot(weight, read, axes=(1, 0))  # [t, *window, s, *window]
    order = [0, count + 1, *(n for k in range(count) for n in (1 + k, count + 2 + k))]
    window = [a * b for a, b in zip(weight.shape[2:], read.shape[2:], strict=True)]
    made: np.ndarray = product.transpose(order).reshape(len(weight), read.shape[1], *window)
    return made
