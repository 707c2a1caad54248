"""Weights behind nodes that read constants alone: folded, replaced, and nothing left behind."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxcp.chain import Stage
from onnxcp.graph.constants import Constants
from onnxcp.graph.shapes import infer
from onnxcp.graph.sites import find
from onnxcp.graph.splice import rewrite, with_outputs
from onnxcp.graph.structure import changes

SHAPE = (1, 4, 5, 5)
X = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
W = (np.random.default_rng(0).standard_normal((6, 4, 3, 3)) / 6).astype(np.float32)
SCALE = np.linspace(0.5, 2, 6, dtype=np.float32).reshape(6, 1, 1, 1)
INTEGERS = np.round(W * 100).astype(np.int8)

Stored = dict[str, np.ndarray]


def node(op: str, inputs: str, outputs: str = "w", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def sparse(name: str) -> onnx.SparseTensorProto:
    places = np.flatnonzero(np.abs(W) > 0.1).astype(np.int64)
    values = numpy_helper.from_array(W.ravel()[places], name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(places, "places"), W.shape)


def model(
    nodes: list[onnx.NodeProto], stored: Stored, opset: int = 13, bias: str = "", sparsely=()
) -> onnx.ModelProto:
    conv = helper.make_node("Conv", ["x", "w", *bias.split()], ["y"], name="conv", pads=[1] * 4)
    graph = helper.make_graph(
        [*nodes, conv],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6, 5, 5])],
        [numpy_helper.from_array(values, name) for name, values in stored.items()],
        sparse_initializer=sparsely,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


NORM = [  # of a weight normalization: g · v / ‖v‖
    node("Mul", "v v", "squares"),
    node("ReduceSum", "squares axes", "sums"),
    node("Sqrt", "sums", "norm"),
    node("Div", "v norm", "unit"),
    node("Mul", "unit g"),
]
CASES: dict[str, onnx.ModelProto] = {
    "identity": model([node("Identity", "k")], {"k": W}),
    "float16": model([node("Cast", "k", to=1)], {"k": W.astype(np.float16)}),
    "float64": model([node("Cast", "k", to=1)], {"k": W.astype(np.float64)}),
    "transposed": model(
        [node("Transpose", "k", perm=[3, 2, 0, 1])], {"k": W.transpose(2, 3, 1, 0).copy()}
    ),
    "reshaped": model(
        [node("Reshape", "k s")], {"k": W.reshape(6, -1), "s": np.array([6, 4, 3, 3])}
    ),
    "squeezed by input": model([node("Squeeze", "k a")], {"k": W[None], "a": np.array([0])}),
    "squeezed by attribute": model([node("Squeeze", "k", axes=[0])], {"k": W[None]}, opset=11),
    "unsqueezed": model(
        [node("Unsqueeze", "g a", "u"), node("Mul", "k u")],
        {"k": W, "g": SCALE.ravel(), "a": np.array([1, 2, 3])},
    ),
    "scaled": model([node("Mul", "k g")], {"k": W, "g": SCALE}),
    "weight normalization": model(NORM, {"v": W, "g": SCALE, "axes": np.array([1, 2, 3])}),
    "joined": model([node("Concat", "k l", axis=0)], {"k": W[:2], "l": W[2:]}),
    "split": model([node("Split", "k s", "w other", axis=0)], {
        "k": np.concatenate([W, W[:1]]), "s": np.array([6, 1])
    }),
    "a Constant": model([node("Constant", "", value=numpy_helper.from_array(W))], {}),
    "floats of a Constant": model(
        [node("Constant", "", "f", value_floats=W.ravel().tolist()), node("Reshape", "f s")],
        {"s": np.array(W.shape)},
    ),
    "one number of a Constant": model(
        [node("Constant", "", "f", value_float=0.25), node("Expand", "f s")],
        {"s": np.array(W.shape)},
    ),
    "filled": model(
        [node("ConstantOfShape", "s", value=numpy_helper.from_array(np.array([0.5], "f")))],
        {"s": np.array(W.shape)},
    ),
    "sparse": model([], {}, sparsely=[sparse("w")]),
    "sparse in a Constant": model([node("Constant", "", sparse_value=sparse(""))], {}),
}  # fmt: skip


def computed(proto: onnx.ModelProto, *names: str) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(list(names) or None, {"x": X})


def site_of(proto: onnx.ModelProto):
    (site,), _ = find(proto, infer(proto, {"x": SHAPE}))
    return site


def replaced(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its kernel halved, by a chain of one stage."""
    site = site_of(proto)
    chain = (Stage("dense", site.kernel / 2, site.geometry),)
    return rewrite(proto, {"conv": chain}, [site], metadata={}).proto


@pytest.mark.parametrize("case", CASES)
def test_a_kernel_is_what_the_runtime_reads(case):
    proto = CASES[case]
    onnx.checker.check_model(proto)
    if "sparse" in case:  # no output of the runtime's
        expected = np.where(np.abs(W) > 0.1, W, 0)
    else:
        (expected,) = computed(with_outputs(proto, ["w"]), "w")
    np.testing.assert_allclose(site_of(proto).kernel, expected, rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_a_replaced_kernel_takes_the_nodes_that_made_it_along(case):
    made = replaced(CASES[case])
    assert [n.name for n in made.graph.node] == ["conv/cp/dense"]
    assert [t.name for t in made.graph.initializer] == ["conv/cp/dense.weight"]
    assert not made.graph.sparse_initializer
    onnx.checker.check_model(made, full_check=True)
    before, after = computed(CASES[case]), computed(made)
    np.testing.assert_allclose(after[0], before[0] / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_check_of_the_surgery_misses_nothing_of_them(case):
    proto = CASES[case]
    assert not changes(proto, replaced(proto), ["conv"]).failures


def test_what_is_read_elsewhere_stays():
    proto = CASES["weight normalization"]
    proto = with_outputs(proto, ["norm"])
    made = replaced(proto)
    assert [n.output[0] for n in made.graph.node] == ["squares", "sums", "norm", "y"]
    assert {t.name for t in made.graph.initializer} == {"v", "axes", "conv/cp/dense.weight"}
    assert not changes(proto, made, ["conv"]).failures


def test_a_lost_node_that_was_read_elsewhere_is_found():
    proto = with_outputs(CASES["weight normalization"], ["norm"])
    made = replaced(proto)
    del made.graph.node[0]
    assert any("squares" in failure for failure in changes(proto, made, ["conv"]).failures)


def test_a_changed_sparse_tensor_is_found():
    proto = model([node("Identity", "k")], {"k": W}, sparsely=[sparse("other")])
    made = replaced(proto)
    del made.graph.sparse_initializer[:]
    assert changes(proto, made, ["conv"]).failures == (
        "sparse tensor 'other' is not the reference's",
    )


def test_a_bias_is_folded_too():
    bias = np.arange(6, dtype=np.float16)
    proto = model(
        [node("Identity", "k"), node("Cast", "h", "b", to=1)], {"k": W, "h": bias}, bias="b"
    )
    np.testing.assert_array_equal(site_of(proto).bias, bias.astype(np.float32))


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
@pytest.mark.parametrize("behind", ["", "Reshape"])
def test_a_weight_in_integers_is_quantized_already(domain, behind):
    nodes = [
        helper.make_node(
            "DequantizeLinear", ["q", "s", "z"], ["d" if behind else "w"], domain=domain
        )
    ]
    stored = {"q": INTEGERS, "s": np.float32(0.01), "z": np.int8(0)}
    if behind:
        nodes.append(node("Reshape", "d dims"))
        stored["dims"] = np.array(W.shape)
    proto = model(nodes, stored)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    found, skips = find(proto, infer(proto, {}))
    assert not found
    assert [s.code for s in skips] == ["quantized"]


def test_a_product_with_what_is_rounded_on_the_way_is_computed_not_quantized():
    """Activations pass the same nodes."""
    graph = onnx.parser.parse_graph(
        "g (float[2,3] x, float[3,4] v) => (float[2,4] y) <float s = {0.1}> "
        "{ q = QuantizeLinear (v, s)  d = DequantizeLinear (q, s)  y = MatMul (x, d) }"
    )
    assert not Constants(graph, 13).is_quantized("d")


def test_what_is_fed_is_no_constant():
    graph = onnx.parser.parse_graph(
        "g (float[2,3] x) => (float[2,3] y) <float k = {2}> { m = Mul (x, k)  y = Identity (m) }"
    )
    assert Constants(graph, 13).names == {"k"}


@pytest.mark.parametrize("op", ["ConstantOfShape", "Expand", "Tile", "Mul"])
def test_what_would_be_too_large_is_not_computed(op):
    """Each of these would take terabytes."""
    long = np.array([2**20, 2**20], np.int64)
    stored = {"n": long, "one": np.ones((1, 1), np.float32)}
    column, row = np.ones((2**15, 1), np.float32), np.ones((1, 2**15), np.float32)
    inputs = {"ConstantOfShape": "n", "Expand": "one n", "Tile": "one n", "Mul": "a b"}[op]
    graph = model([node(op, inputs)], {**stored, "a": column, "b": row}).graph
    assert Constants(graph, 13).find("w") is None


def test_a_long_row_of_nodes_is_followed():
    nodes = [node("Identity", f"k{i}", f"k{i + 1}") for i in range(3000)]
    proto = model([*nodes, node("Neg", "k3000")], {"k0": W})
    np.testing.assert_array_equal(site_of(proto).kernel, -W)


def test_new_weights_lie_outside_where_those_they_come_from_did():
    proto = CASES["float16"]
    site = site_of(proto)
    chain = (Stage("dense", site.kernel, site.geometry),)
    made = rewrite(proto, {"conv": chain}, [site], metadata={}, external=frozenset({"k"}))
    assert "conv/cp/dense.weight" in made.external
