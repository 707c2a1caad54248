"""A chain put together again is the kernel that its form reconstructs: two ways that share no
code must agree."""

from dataclasses import replace

import numpy as np
import pytest

from onnxcp.chain import Geometry, Stage, pointwise
from onnxcp.forms import FORMS
from onnxcp.forms.grouped import chain, part_of, reconstructed
from onnxcp.verification import recompose

# weight [T, S / group, *window], groups, geometry
KINDS = {
    "1-D": ((6, 4, 3), 1, Geometry((2,), (2,), (1, 2))),
    "1-D groups": ((6, 2, 3), 2, Geometry((1,), (1,), (1, 1))),
    "2-D": ((6, 4, 3, 5), 1, Geometry((2, 1), (1, 2), (1, 0, 2, 3))),
    "2-D groups": ((6, 4, 3, 3), 3, Geometry((2, 1), (1, 1), (1, 0, 2, 1))),
    "one output a group": ((4, 2, 3, 3), 4, Geometry()),
    "pointwise": ((6, 4, 1, 1), 1, Geometry((2, 2))),
    "3-D groups": ((6, 2, 3, 2, 3), 2, Geometry((2, 1, 3), (1, 2, 1), (1, 1, 1, 0, 0, 0))),
    "product": ((6, 4), 1, Geometry(dimensions=0)),
}
TAKEN = [
    (kind, form)
    for kind, (shape, group, _) in KINDS.items()
    for form, row in FORMS.items()
    if row.refuses(part_of(shape, group)) is None
]


def made(kind, form):
    shape, group, geometry = KINDS[kind]
    part, rng = part_of(shape, group), np.random.default_rng(0)
    factors = [FORMS[form].draw(part, 3, rng) for _ in range(group)]
    stages = chain(FORMS[form], factors, part, geometry)
    return stages, reconstructed(FORMS[form], factors, part)


@pytest.mark.parametrize(("kind", "form"), TAKEN)
def test_a_chain_stands_for_the_kernel_its_form_reconstructs(kind, form):
    (shape, group, _), (stages, kernel) = KINDS[kind], made(kind, form)
    assert recompose.misfit(stages) is None
    assert (recompose.shape(stages), recompose.groups(stages)) == (shape, group)
    np.testing.assert_allclose(recompose.kernel(stages), kernel, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kind", "form"), TAKEN)
def test_a_chain_slides_as_the_node_it_replaces(kind, form):
    assert recompose.geometry(made(kind, form)[0]) == KINDS[kind][2]


LEFT, RIGHT = (pointwise(role, np.ones((4, 4)), 2) for role in ("left", "right"))
WIDE = Stage("wide", np.ones((4, 4, 3, 1)), Geometry())
MISFITS = {
    "channels that do not meet": (LEFT, replace(RIGHT, weight=np.ones((4, 3, 1, 1)))),
    "a bias in the middle": (replace(LEFT, bias=np.ones(4)), RIGHT),
    "two windows along one dimension": (WIDE, WIDE),
    "a stride behind a window": (WIDE, replace(RIGHT, geometry=Geometry((2, 1)))),
    "a padding behind a window": (WIDE, replace(RIGHT, geometry=Geometry(pads=(1, 0, 0, 0)))),
}


@pytest.mark.parametrize("stages", MISFITS.values(), ids=MISFITS)
def test_what_makes_no_one_convolution_is_said(stages):
    assert recompose.misfit(stages) is not None


def test_windows_along_different_dimensions_make_one_convolution():
    assert recompose.misfit((WIDE, Stage("flat", np.ones((4, 4, 1, 3)), Geometry()))) is None
