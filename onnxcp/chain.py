"""A convolution as data: weights and geometry, with no graph around it.

Every docstring of this package names axes with these letters:

    T  output channels       Y  kernel height      R  rank
    S  input channels        X  kernel width       N  batch
    K  kernel positions: Y·X in two dimensions

A window has any number of dimensions: two mostly, one in Conv1D, three in Conv3D, and none
in a matrix product, which keeps whatever positions there are.

`forms` produce chains of `Stage`s; `rewrite` turns a chain into ONNX nodes and
`finetune` into torch modules. Neither side knows the other exists. What a chain costs
is counted here, stage by stage, so that no form has a formula of its own.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnxcp.arrays import Float

Kernel = Float[np.ndarray, "T S *window"]
Sizes = tuple[int, ...]  # one number for each dimension of a window or image


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a kernel slides, in input pixels; what is left out is 1, 1 and 0 in two dimensions,
    or in as many as what is given has."""

    strides: Sizes = ()
    dilations: Sizes = ()
    pads: Sizes = ()  # before each dimension, then after each: the ONNX order
    dimensions: int = -1

    def __post_init__(self) -> None:
        given = {len(self.strides), len(self.dilations), len(self.pads) // 2} - {0}
        count = self.dimensions if self.dimensions >= 0 else max(given, default=2)
        if given - {count}:
            raise ValueError(f"{self}: not of one number of dimensions")
        object.__setattr__(self, "dimensions", count)
        object.__setattr__(self, "strides", self.strides or (1,) * count)
        object.__setattr__(self, "dilations", self.dilations or (1,) * count)
        object.__setattr__(self, "pads", self.pads or (0,) * 2 * count)

    def output(self, window: Sizes, image: Sizes) -> Sizes:
        """Size of what a window makes of an image; ≤ 0 where it does not fit. Without
        dimensions there is no window, and the image stays as it is."""
        if not self.dimensions:
            return image
        sizes = []
        for k, (size, step) in enumerate(zip(window, self.dilations, strict=True)):
            padded = image[k] + self.pads[k] + self.pads[k + self.dimensions]
            sizes.append((padded - (size - 1) * step - 1) // self.strides[k] + 1)
        return tuple(sizes)

    def along(self, dimension: int) -> "Geometry":
        """The same in one dimension, and plain in the others."""
        at, count = dimension, self.dimensions

        def only(values: Sizes, plain: int) -> Sizes:
            return tuple(v if k % count == at else plain for k, v in enumerate(values))

        return Geometry(
            only(self.strides, 1), only(self.dilations, 1), only(self.pads, 0), dimensions=count
        )


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """One convolution of a chain; `group == T` makes it depthwise.

    `role` names what the stage does in its form ("inputs", "vertical", ...); nodes are
    named after it.
    """

    role: str
    weight: Float[np.ndarray, "T S_per_group *window"]
    geometry: Geometry = field(default_factory=Geometry)
    group: int = 1
    bias: Float[np.ndarray, " T"] | None = None


Chain = tuple[Stage, ...]


def pointwise(role: str, matrix: Float[np.ndarray, "T S"], dimensions: int) -> Stage:
    """A 1×1 convolution: a matrix applied to the channels of every pixel."""
    weight = matrix.reshape(*matrix.shape, *(1,) * dimensions)
    return Stage(role, weight, Geometry(dimensions=dimensions))


def with_bias(chain: Chain, bias: Float[np.ndarray, " T"] | None) -> Chain:
    """The chain with a bias on its last stage, where a bias belongs.

    That is why the padding may wait for a window behind a 1×1: a bias-free 1×1 maps zeros
    to zeros, so padding before or after it is equal.
    """
    return (*chain[:-1], replace(chain[-1], bias=bias))


def side_by_side(chains: Sequence[Chain]) -> Chain:
    """Chains of equal shapes, without bias, on groups of channels: one chain with the sum of
    their groups."""
    merged = []
    for stages in zip(*chains, strict=True):
        weight = np.concatenate([stage.weight for stage in stages])
        group = sum(stage.group for stage in stages)
        merged.append(replace(stages[0], weight=weight, group=group))
    return tuple(merged)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a chain takes: multiply-adds of one sample, and stored numbers."""

    macs: int
    parameters: int


def cost(chain: Iterable[Stage], image: Sizes) -> Cost:
    """Cost of running `chain` on one image of the given size."""
    macs = parameters = 0
    for stage in chain:
        image = stage.geometry.output(stage.weight.shape[2:], image)
        macs += stage.weight.size * math.prod(image)
        parameters += stage.weight.size + (0 if stage.bias is None else stage.bias.size)
    return Cost(macs, parameters)
