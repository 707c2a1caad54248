"""Chains as ONNX: what ONNX Runtime computes with them in the model's own precision."""

import numpy as np
import onnx
import pytest

from onnxcp.chains import chain_model, chain_nodes
from onnxcp.conv import Geometry, Stage, with_bias
from onnxcp.forms import FORMS
from onnxcp.providers import Target, open_runner

CPU = Target.named("cpu", threads=1)
SHAPE = (32, 16, 3, 5)
GEOMETRIES = {
    "same padding": Geometry(pads=(1, 2, 1, 2)),
    "stride 2": Geometry(strides=(2, 2), pads=(1, 1, 1, 1)),
    "dilated": Geometry(dilations=(2, 3), pads=(2, 3, 2, 3)),
    "uneven pads": Geometry(pads=(0, 1, 2, 3)),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_chain_equals_its_convolution_in_onnx_runtime(form, geometry, has_bias, dtype):
    rng, dtype = np.random.default_rng(0), np.dtype(dtype)
    factors = tuple(f.astype(dtype) / 4 for f in form.draw(SHAPE, 16, rng))
    bias = rng.standard_normal(SHAPE[0]) if has_bias else None
    dense = Stage("dense", form.reconstruct(factors, SHAPE), geometry, bias=bias)
    feeds = {"x": rng.standard_normal((2, SHAPE[1], 15, 16)).astype(dtype)}
    chains = (with_bias(form.stages(factors, SHAPE, geometry), bias), (dense,))
    made, wanted = (
        open_runner(chain_model(chain, feeds["x"].shape, dtype), CPU)(feeds)[0].astype(np.float64)
        for chain in chains
    )
    error = np.linalg.norm(made - wanted) / np.linalg.norm(wanted)
    assert error < CPU.tolerance(dtype)


def test_nodes_are_named_after_their_roles():
    form = FORMS["cp4"]
    factors = form.draw(SHAPE, 16, np.random.default_rng(0))
    chain = with_bias(form.stages(factors, SHAPE, Geometry()), np.zeros(32))
    made = chain_nodes(chain, "conv1/cp", "in", "out", np.dtype(np.float32))
    assert [n.name for n in made.nodes] == [
        "conv1/cp/inputs",
        "conv1/cp/vertical",
        "conv1/cp/horizontal",
        "conv1/cp/outputs",
    ]
    assert (made.nodes[0].input[0], made.nodes[-1].output[0]) == ("in", "out")
    kinds = {t.data_type for t in made.initializers}
    assert kinds == {onnx.TensorProto.FLOAT}
