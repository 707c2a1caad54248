"""Convolutions as data: sizes and cost."""

import numpy as np
import pytest
from onnx.reference.ops.op_conv import Conv

from onnxcp.chain import Geometry, Stage, cost


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(),
        Geometry(pads=(1, 2, 0, 1)),
        Geometry(strides=(2, 3)),
        Geometry(dilations=(2, 1), pads=(2, 1, 2, 1)),
        Geometry((2, 2), (2, 2), (1, 1, 1, 1)),
    ],
)
def test_output_size_is_that_of_onnx(geometry):
    x, w = np.zeros((1, 1, 13, 14)), np.zeros((1, 1, 3, 2))
    made = Conv.eval(
        x, w, strides=geometry.strides, dilations=geometry.dilations, pads=geometry.pads
    )
    assert geometry.output((3, 2), (13, 14)) == made.shape[2:]


def test_a_window_that_does_not_fit_has_no_output():
    assert min(Geometry().output((5, 5), (4, 9))) < 1


def test_cost_adds_up_the_stages():
    first = Stage("inputs", np.zeros((8, 3, 1, 1)))
    second = Stage("window", np.zeros((8, 1, 3, 3)), Geometry((2, 2)), group=8, bias=np.zeros(8))
    found = cost((first, second), (9, 9))
    assert found.macs == 24 * 81 + 72 * 16
    assert found.parameters == 24 + 72 + 8


def test_a_product_costs_its_matrix_in_every_row():
    stage = Stage("dense", np.zeros((8, 3)), Geometry(dimensions=0))
    assert cost([stage], ()).macs == 24
    assert cost([stage, Stage("more", np.zeros((5, 8)), Geometry(dimensions=0))], (7, 2)).macs == (
        (24 + 40) * 14
    )
