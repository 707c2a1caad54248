"""Forms on convolutions with groups: every group a kernel of its own, their chains side by side.

A rank is that of the whole layer, so a multiple of the number of groups.
"""

from collections.abc import Sequence

import numpy as np

from onnxcp.chain import Chain, Geometry, Kernel, side_by_side
from onnxcp.forms.fit import Factors, Shape
from onnxcp.forms.form import Form


def part_of(shape: Shape, group: int) -> Shape:
    """Shape of one group's kernel, from that of the stored weight [T, S / group, *window]."""
    return (shape[0] // group, *shape[1:])


def largest_rank(form: Form, shape: Shape, group: int) -> int:
    """The rank at which a kernel can be written exactly: more has no use."""
    return form.largest(part_of(shape, group)) * group


def parts(kernel: Kernel, group: int) -> list[np.ndarray]:
    """The kernel of every group."""
    return np.split(kernel, group)


def chain(form: Form, factors: Sequence[Factors], part: Shape, geometry: Geometry) -> Chain:
    """The chain of a layer from the factors of its groups, without bias."""
    return side_by_side([form.stages(f, part, geometry) for f in factors])


def drawn(
    form: Form, shape: Shape, group: int, rank: int, geometry: Geometry, rng: np.random.Generator
) -> Chain:
    """A chain with random weights: to time, or to count."""
    part = part_of(shape, group)
    factors = [form.draw(part, rank // group, rng) for _ in range(group)]
    return chain(form, factors, part, geometry)


def reconstructed(form: Form, factors: Sequence[Factors], part: Shape) -> Kernel:
    """The dense weight [T, S / group, *window] that a chain stands for."""
    dense: Kernel = np.concatenate([form.reconstruct(f, part) for f in factors])
    return dense
