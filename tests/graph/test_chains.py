"""Chains as ONNX: what ONNX Runtime computes with them in the model's own precision."""

import numpy as np
import onnx
import pytest
from tiny import chain_model

from onnxcp.chain import Geometry, Stage, pointwise, with_bias
from onnxcp.forms import FORMS
from onnxcp.graph.chains import chain_nodes
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner

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
    made = chain_nodes(chain, "conv1", "in", "out", np.dtype(np.float32))
    assert [n.name for n in made.nodes] == [
        "conv1/cp/inputs",
        "conv1/cp/vertical",
        "conv1/cp/horizontal",
        "conv1/cp/outputs",
    ]
    assert (made.nodes[0].input[0], made.nodes[-1].output[0]) == ("in", "out")
    kinds = {t.data_type for t in made.initializers}
    assert kinds == {onnx.TensorProto.FLOAT}


# stages of a product, its operator, and the shape it reads
PRODUCTS = {
    "MatMul": ("MatMul", (3, 16)),
    "MatMul of sequences": ("MatMul", (2, 3, 5, 16)),
    "Gemm": ("Gemm", (3, 16)),
}


@pytest.mark.parametrize("kind", PRODUCTS)
@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_chain_without_windows_is_a_product_in_onnx_runtime(kind, has_bias, dtype):
    op, shape = PRODUCTS[kind]
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((32, 4)), rng.standard_normal((4, 16)) / 4
    bias = rng.standard_normal(32) if has_bias else None
    chain = with_bias((pointwise("inputs", right, 0), pointwise("outputs", left, 0)), bias)
    x, dtype = rng.standard_normal(shape), np.dtype(dtype)
    made = open_runner(chain_model(chain, shape, dtype, op), CPU)({"x": x.astype(dtype)})[0]
    wanted = x @ (left @ right).T + (0 if bias is None else bias)
    assert made.shape == wanted.shape
    assert np.linalg.norm(made - wanted) < CPU.tolerance(dtype) * np.linalg.norm(wanted)


def test_a_matrix_is_stored_as_a_product_multiplies_by_it():
    stage = pointwise("outputs", np.arange(6.0).reshape(2, 3), 0)
    for op in ("MatMul", "Gemm"):
        made = chain_nodes((stage,), "a", "x", "y", np.dtype(np.float32), op)
        assert list(made.initializers[0].dims) == [3, 2]
        assert not made.nodes[0].attribute
