"""Quantized models without their rounding."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from int8_models import int8, outputs, plainly, relative, samples, tiny

from onnxcp.graph import io
from onnxcp.quantization.dequantize import dequantised
from onnxcp.quantization.scheme import Scheme
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner

TARGET = Target.named("cpu", 1)
X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
HEAD = "<float s = {0.1}, uint8 z = {10}, float[3] sw = {0.5, 0.25, 1}, int8[3] zw = {0, 0, 0},"


def graph(nodes, tensors="float unread = {1}", opset=13, output="float[N,m] y"):
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> '
        f"g (float[N,4] x) => ({output}) {HEAD} {tensors}> {{ {nodes} }}"
    )


def kinds(proto):
    return Counter(node.op_type for node in proto.graph.node)


def run(proto, x=X):
    onnx.checker.check_model(proto, full_check=True)
    return open_runner(proto.SerializeToString(), TARGET)({"x": x})[0]


W = "int8[4,3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, -11, 12}"
VALUES = np.array([*range(1, 11), -11, 12], np.float32).reshape(4, 3)
PAIR = "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) "


def test_weights_become_what_they_stand_for_by_channel():
    made = dequantised(graph("d = DequantizeLinear <axis=1> (w, sw, zw) y = MatMul (x, d)", W))
    assert kinds(made) == {"MatMul": 1}
    assert [t.name for t in made.graph.initializer] == ["d"]
    scales = np.array([0.5, 0.25, 1], np.float32)
    np.testing.assert_allclose(run(made), X @ (VALUES * scales), rtol=1e-6)


def test_a_bias_of_32_bits_becomes_floats():
    tensors = f"{W}, int32[3] b = {{100000, -7, 0}}"
    nodes = """d = DequantizeLinear <axis=1> (w, sw, zw) e = DequantizeLinear <axis=0> (b, sw)
        y = Gemm (x, d, e)"""
    made = dequantised(graph(nodes, tensors))
    bias = next(t for t in made.graph.initializer if t.name == "e")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(bias), [50000, -1.75, 0])


@pytest.mark.parametrize("opset", [10, 13])
def test_activations_keep_their_range_and_are_not_rounded(opset):
    made = dequantised(graph(PAIR + "y = Identity (d)", opset=opset))
    assert kinds(made) == {"Clip": 1, "Identity": 1}
    np.testing.assert_allclose(run(made, 20 * X), np.clip(20 * X, -1, 24.5), rtol=1e-6)


def test_a_pair_that_gives_an_output_keeps_its_name():
    made = dequantised(graph("q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)"))
    assert kinds(made) == {"Clip": 1}
    np.testing.assert_allclose(run(made), X.clip(-1), rtol=1e-6)


def test_without_a_zero_point_it_is_zero_of_8_unsigned_bits():
    nodes = "q = QuantizeLinear (x, s) d = DequantizeLinear (q, s) y = Neg (d)"
    np.testing.assert_allclose(run(dequantised(graph(nodes)), 20 * X), -(20 * X).clip(0, 25.5))


def test_weights_behind_a_pair_keep_their_rounding():
    tensors = "float[4,3] w = {0.3, 0.3, 0.3, 90, 90, 90, -90, 1, 2, 3, 4, 5}"
    nodes = """q = QuantizeLinear <axis=1> (w, sw, zw) d = DequantizeLinear <axis=1> (q, sw, zw)
        y = MatMul (x, d)"""
    made = dequantised(graph(nodes, tensors))
    stored = onnx.numpy_helper.to_array(made.graph.initializer[0])
    np.testing.assert_array_equal(stored[:3], [[0.5, 0.25, 0], [63.5, 31.75, 90], [-64, 1, 2]])
    assert kinds(made) == {"MatMul": 1}


LEFT = {
    "scales by channel of an activation": """q = QuantizeLinear <axis=1> (x, s4, z4)
        d = DequantizeLinear <axis=1> (q, s4, z4) y = Neg (d)""",
    "something between": """q = QuantizeLinear (x, s, z) r = Transpose (q)
        d = DequantizeLinear (r, s, z) y = Neg (d)""",
    "two scales": "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, t, z) y = Neg (d)",
    "a computed scale": """t2 = Neg (t) t3 = Neg (t2) q = QuantizeLinear (x, t3, z)
        d = DequantizeLinear (q, t3, z) y = Neg (d)""",
}


@pytest.mark.parametrize("nodes", LEFT.values(), ids=LEFT)
def test_what_is_no_plain_pair_is_left_as_it_is(nodes):
    tensors = "float t = {0.2}, float[4] s4 = {1, 1, 1, 2}, uint8[4] z4 = {0, 0, 0, 0}"
    proto = graph(nodes, tensors)
    made = dequantised(proto)
    assert list(made.graph.node) == list(proto.graph.node)
    np.testing.assert_array_equal(run(made), run(proto))


@pytest.mark.parametrize("scheme", [Scheme(), Scheme(activations="int8", per_channel=False)])
def test_what_the_quantizer_made_computes_as_in_float(tmp_path, scheme):
    """It leaves ReLU to the range of what follows."""
    proto, feeds = tiny(tmp_path), samples().read(0, 8)
    made = int8(proto, scheme)
    before = made.SerializeToString(deterministic=True)
    plain = dequantised(made)
    assert made.SerializeToString(deterministic=True) == before
    assert "Relu" not in kinds(made)
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(kinds(plain))
    reference = outputs(proto, feeds)
    by_weights = relative(reference, outputs(plain, feeds))
    assert by_weights < relative(reference, plainly(made, feeds)) < 0.05
    assert by_weights < 0.01


def test_a_float_model_is_left_as_it_is():
    proto = io.load(Path(__file__).parents[2] / "models/digits.onnx").proto
    assert dequantised(proto) == proto
