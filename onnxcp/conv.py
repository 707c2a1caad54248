"""A convolution as data: weights and geometry, with no graph around it.

Every docstring of this package names axes with these letters:

    T  output channels       Y  kernel height      R  rank
    S  input channels        X  kernel width       N  batch

`forms` produce chains of `Stage`s; `rewrite` turns a chain into ONNX nodes and
`finetune` into torch modules. Neither side knows the other exists. What a chain costs
is counted here, stage by stage, so that no form has a formula of its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

Kernel = Float[np.ndarray, "T S Y X"]
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a kernel slides: (vertical, horizontal) pairs, in input pixels."""

    strides: Pair = (1, 1)
    dilations: Pair = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right: the ONNX order

    def output(self, window: Pair, image: Pair) -> Pair:
        """(height, width) of what a Y×X window makes of an image; ≤ 0 where it does not fit."""
        top, left, bottom, right = self.pads
        padded = (image[0] + top + bottom, image[1] + left + right)
        span = [(size - 1) * step + 1 for size, step in zip(window, self.dilations, strict=True)]
        rows, columns = ((padded[k] - span[k]) // self.strides[k] + 1 for k in (0, 1))
        return rows, columns


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """One convolution of a chain; `group == T` makes it depthwise.

    `role` names what the stage does in its form ("inputs", "vertical", ...); nodes are
    named after it.
    """

    role: str
    weight: Float[np.ndarray, "T S_per_group Y X"]
    geometry: Geometry = field(default_factory=Geometry)
    group: int = 1
    bias: Float[np.ndarray, " T"] | None = None


Chain = tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a chain takes: multiply-adds of one sample, and stored numbers."""

    macs: int
    parameters: int


def cost(chain: Iterable[Stage], image: Pair) -> Cost:
    """Cost of running `chain` on one image of (height, width) pixels."""
    macs = parameters = 0
    for stage in chain:
        window = (stage.weight.shape[2], stage.weight.shape[3])
        image = stage.geometry.output(window, image)
        macs += stage.weight.size * image[0] * image[1]
        parameters += stage.weight.size + (0 if stage.bias is None else stage.bias.size)
    return Cost(macs, parameters)
