"""An int8 model and its float model differ by the rounding of activations alone."""

import numpy as np
import onnx
import pytest
from test_quantize import NODES, TENSORS, int8, kinds, relative, samples, tiny

from onnxcp.errors import ModelError
from onnxcp.providers import Target
from onnxcp.quantize import dequantised
from onnxcp.runtime import runtime
from onnxcp.scheme import Scheme

SCHEMES = {
    "unsigned": Scheme(),
    "signed": Scheme(activations="int8"),
    "by tensor": Scheme(per_channel=False),
    "clipped": Scheme(method="percentile", percentile=90),
    "windows float": Scheme(floats=("second",)),
    "uncorrected": Scheme(correct_bias=False),
}
HEAD = NODES + "[flat] f = Flatten (y) [head] g = Gemm <transB = 1> (f, w3, b3)"
WHOLE = {**TENSORS, "w3": np.random.default_rng(0).standard_normal((5, 288)) / 17, "b3": np.ones(5)}


def unoptimised(proto, feeds):
    """Outputs of a model as it is written: the runtime's optimizations would round more."""
    ort = runtime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    names = Target.named("cpu", 1).provider.ort_name
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=[names])
    return session.run(None, dict(feeds))[0]


def finer(proto, factor=2**16):
    """The int8 model with activations in 2¹⁶ times smaller steps of 32 bits, by arithmetic in
    nodes of its own: DequantizeLinear(QuantizeLinear(x)) becomes round(clip(x)·f/s)·s/f."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
    rounds = {n.output[0]: n for n in made.graph.node if n.op_type == "QuantizeLinear"}
    nodes = []
    for node in made.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in rounds:
            pair = rounds[node.input[0]]
            scale, zero = stored[pair.input[1]], stored[pair.input[2]]
            limits, name = np.iinfo(zero.dtype), node.output[0]
            numbers = {
                "low": (limits.min - int(zero)) * scale,
                "high": (limits.max - int(zero)) * scale,
                "step": scale / factor,
            }
            made.graph.initializer.extend(
                onnx.numpy_helper.from_array(np.float32(v), f"{name}.{k}")
                for k, v in numbers.items()
            )
            nodes += [
                onnx.helper.make_node(op, inputs, [output])
                for op, inputs, output in (
                    ("Max", [pair.input[0], f"{name}.low"], f"{name}.1"),
                    ("Min", [f"{name}.1", f"{name}.high"], f"{name}.2"),
                    ("Div", [f"{name}.2", f"{name}.step"], f"{name}.3"),
                    ("Round", [f"{name}.3"], f"{name}.4"),
                    ("Mul", [f"{name}.4", f"{name}.step"], name),
                )
            ]
        elif node.op_type != "QuantizeLinear":
            nodes.append(node)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_it_is_what_the_int8_model_tends_to_as_steps_of_activations_shrink(tmp_path, scheme):
    proto = int8(
        tiny(tmp_path, HEAD, WHOLE, interface="float[N,4,9,8] x) => (float[N,a] g"), scheme
    )
    feeds = samples().read(0, 8)
    made = dequantised(proto)
    onnx.checker.check_model(made, full_check=True)
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(kinds(made))
    assert {t.data_type for t in made.graph.initializer} == {onnx.TensorProto.FLOAT}
    assert relative(unoptimised(finer(proto), feeds), unoptimised(made, feeds)) < 1e-4
    assert 1e-4 < relative(unoptimised(proto, feeds), unoptimised(made, feeds)) < 0.05


def parsed(nodes, more="", interface="float[N,4,9,8] x) => (float[N,a,b,c] y"):
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 13]> g ({interface}) '
        f"<float s = {{0.25}}, uint8 z = {{8}}, int8[2] v = {{-3, 5}}, float[2] u = {{0.5, 2}}, "
        f"int8[2] k = {{1, -1}}, float[2] f = {{0.3, 99}}{more}> {{ {nodes} }}"
    )


def initializer(proto, name):
    return onnx.numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name == name))


def test_weights_are_the_numbers_that_their_integers_stand_for():
    made = dequantised(parsed("w = DequantizeLinear <axis = 0> (v, u, k) y = Mul (x, w)"))
    np.testing.assert_array_equal(initializer(made, "w"), np.float32([-2.0, 12.0]))
    assert [n.op_type for n in made.graph.node] == ["Mul"]


def test_weights_stored_as_floats_are_rounded_and_cut_off():
    made = dequantised(
        parsed("q = QuantizeLinear (f, s, z) w = DequantizeLinear (q, s, z) y = Mul (x, w)")
    )
    np.testing.assert_array_equal(initializer(made, "w"), np.float32([0.25, 61.75]))
    assert {t.name for t in made.graph.initializer} == {"w"}


def test_an_activation_keeps_the_range_of_its_integers_and_its_name():
    made = dequantised(parsed("q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)"))
    (node,) = made.graph.node
    assert (node.op_type, *node.output) == ("Clip", "y")
    assert [initializer(made, n).item() for n in node.input[1:]] == [-2.0, 61.75]


def test_the_model_given_stays_as_it_is_and_a_float_one_comes_out_equal(tmp_path):
    proto = tiny(tmp_path)
    assert dequantised(proto) == proto
    quantized = int8(proto)
    before = quantized.SerializeToString()
    made = dequantised(quantized)
    assert quantized.SerializeToString() == before
    assert list(made.metadata_props) == list(quantized.metadata_props)
    assert list(made.graph.output) == list(quantized.graph.output)


REFUSED = {
    "QLinearConv 'c' computes in integers": (
        "q = QuantizeLinear (x, s, z) [c] a = QLinearConv (q, s, z, v, s, z, s, z) "
        "y = DequantizeLinear (a, s, z)"
    ),
    "MaxPool 'm' computes in integers": (
        "q = QuantizeLinear (x, s, z) [m] a = MaxPool <kernel_shape = [1, 1]> (q) "
        "y = DequantizeLinear (a, s, z)"
    ),
    "QuantizeLinear:q has scales that are computed": (
        "t = Abs (s) q = QuantizeLinear (x, t, z) y = DequantizeLinear (q, t, z)"
    ),
    "the activation 'y' has scales by channel": (
        "q = QuantizeLinear <axis = 1> (x, u, k) y = DequantizeLinear <axis = 1> (q, u, k)"
    ),
    "QuantizeLinear 'inner' computes in integers": (
        "c = Constant <value_int = 1> () t = Cast <to = 9> (c) "
        "y = If (t) <then_branch = one () => (float[N,4,9,8] i) {"
        "[inner] q = QuantizeLinear (x, s, z) i = DequantizeLinear (q, s, z) },"
        "else_branch = two () => (float[N,4,9,8] j) { j = Relu (x) }>"
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_other_integers_are_refused(message):
    with pytest.raises(ModelError, match=f"m.onnx: {message}"):
        dequantised(parsed(REFUSED[message]), "m.onnx")
