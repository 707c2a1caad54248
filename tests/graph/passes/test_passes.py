"""Exact passes: every pattern is found in the forms that exporters write, computes the same, and
what only looks like it is left alone."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxcp.graph import shapes
from onnxcp.graph.pass_table import PASSES
from onnxcp.graph.passes import applied

ort = pytest.importorskip("onnxruntime")

IMAGE = (1, 8, 6, 5)
DTYPES = {"float": np.float32, "double": np.float64, "float16": np.float16}


def model(text, constants=(), image=IMAGE, opset=17, ir=8, dtype="float", outputs=("y",)):
    """A model of nodes as text from `x` to `y`, with stored tensors."""
    given, made = ", ".join(map(str, image)), ", ".join(f"{dtype} {name}" for name in outputs)
    head = f'<ir_version: {ir}, opset_import: ["" : {opset}]>'
    proto = onnx.parser.parse_model(f"{head} g ({dtype}[{given}] x) => ({made}) {{ {text} }}")
    for name, values in dict(constants).items():
        array = np.asarray(values, DTYPES[dtype] if np.asarray(values).dtype.kind == "f" else None)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    for output in proto.graph.output:
        output.CopyFrom(onnx.ValueInfoProto(name=output.name, type=output.type))
    onnx.checker.check_model(proto)
    return proto


def changed(proto, *names, image=IMAGE):
    return applied(proto, names, shapes.infer(proto, {"x": image}))


def run(proto, feeds):
    if proto.graph.input[0].type.tensor_type.elem_type == TensorProto.DOUBLE:
        return ReferenceEvaluator(proto).run(None, feeds)  # the runtime has no such convolution
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options)
    return session.run(None, feeds)


def same(proto, other, image=IMAGE, dtype=np.float32, limit=2e-6):
    """Both models give the same, to rounding, on values far out and near zero."""
    onnx.checker.check_model(other)
    rng = np.random.default_rng(0)
    for size in (1.0, 8.0):
        feeds = {"x": (size * rng.standard_normal(image)).astype(dtype)}
        for one, two in zip(run(proto, feeds), run(other, feeds), strict=True):
            assert one.shape == two.shape
            scale = max(1.0, float(np.abs(one).max()))
            assert float(np.abs(one - two).max()) <= limit * scale
    return True


def operators(proto):
    return [node.op_type for node in proto.graph.node]


SIX = {"three": 3.0, "zero": 0.0, "six": 6.0, "sixth": 1 / 6, "fifth": 0.2, "half": 0.5, "one": 1.0}
SWISH = ["HardSigmoid", "Mul"]
HARD = {
    "paddle": ("a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)", SWISH),
    "torch": ("a = Add(x, three) c = Clip(a, zero, six) d = Div(c, six) y = Mul(x, d)", SWISH),
    "torch, product first": (
        "a = Add(three, x) c = Clip(a, zero, six) d = Mul(c, sixth) y = Mul(d, x)",
        SWISH,
    ),
    "tf2onnx": (
        "a = Add(x, three) r = Relu(a) c = Min(r, six) d = Mul(c, sixth) y = Mul(x, d)",
        SWISH,
    ),
    "bounds apart": (
        "a = Add(x, three) r = Max(a, zero) c = Min(six, r) y = Div(c, six)",
        SWISH[:1],
    ),
    "keras": ("m = Mul(x, fifth) a = Add(m, half) y = Clip(a, zero, one)", SWISH[:1]),
    "hard sigmoid": ("a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)", SWISH[:1]),
}


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
@pytest.mark.parametrize(("text", "left"), HARD.values(), ids=HARD)
def test_hard_activations_are_found_as_exporters_write_them(text, left, opset):
    proto = model(text, SIX, opset=opset)
    made, counts = changed(proto, "hard-activations")
    assert counts == {"hard-activations": 1}
    assert operators(made) == left
    assert same(proto, made)
    assert not {t.name for t in made.graph.initializer} - set(SIX)


def test_old_clips_keep_their_bounds_as_attributes():
    proto = model(
        "a = Add(x, three) c = Clip <min: float = 0.0, max: float = 6.0> (a) y = Div(c, six)",
        {"three": 3.0, "six": 6.0},
        opset=9,
        ir=4,
    )
    made, _ = changed(proto, "hard-activations")
    assert operators(made) == ["HardSigmoid"]
    assert same(proto, made)


NOT_HARD = {
    "another bound": "a = Add(x, three) c = Clip(a, zero, three) y = Div(c, six)",
    "another divisor": "a = Add(x, three) c = Clip(a, zero, six) y = Div(c, three)",
    "another factor": (
        "n = Neg(x) a = Add(x, three) c = Clip(a, zero, six) m = Mul(n, c) y = Div(m, six)"
    ),
    "no lower bound": "a = Add(x, three) c = Min(a, six) y = Div(c, six)",
    "a lone clip": "y = Clip(x, zero, one)",
    "divided the other way": "a = Add(x, three) c = Clip(a, zero, six) y = Div(six, c)",
    "falling": "n = Neg(x) m = Mul(n, fifth) a = Add(m, half) s = Sub(one, a) y = Div(s, six)",
}


@pytest.mark.parametrize("text", NOT_HARD.values(), ids=NOT_HARD)
def test_what_only_looks_like_a_hard_activation_stays(text):
    proto = model(text, SIX)
    made, counts = changed(proto, "hard-activations")
    assert made is proto
    assert not counts


def test_a_tensor_that_others_see_stays():
    text = "a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)"
    for outputs, more in ((("y", "c"), ""), (("y", "z"), "z = Neg(c)")):
        proto = model(f"{text} {more}", SIX, outputs=outputs)
        assert changed(proto, "hard-activations")[0] is proto


def test_an_operator_of_another_domain_is_another():
    proto = model("a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)", SIX)
    proto.graph.node[1].domain = "my"
    proto.opset_import.append(helper.make_opsetid("my", 1))
    assert applied(proto, ["hard-activations"], {})[0] is proto


def test_what_an_if_body_reads_stays():
    body = helper.make_graph(
        [helper.make_node("Neg", ["c"], ["n"])],
        "body",
        [],
        [helper.make_tensor_value_info("n", TensorProto.FLOAT, IMAGE)],
    )
    proto = model("a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)", SIX)
    proto.graph.node.append(
        helper.make_node("If", ["yes"], ["z"], then_branch=body, else_branch=body)
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, IMAGE))
    assert changed(proto, "hard-activations")[0] is proto


SMOOTH = {
    "sigmoid": ("n = Neg(x) e = Exp(n) s = Add(e, one) y = Div(one, s)", ["Sigmoid"]),
    "reciprocal": ("n = Mul(x, minus) e = Exp(n) s = Add(one, e) y = Reciprocal(s)", ["Sigmoid"]),
    "silu": ("n = Neg(x) e = Exp(n) s = Add(e, one) y = Div(x, s)", ["Sigmoid", "Mul"]),
}


@pytest.mark.parametrize(("text", "left"), SMOOTH.values(), ids=SMOOTH)
def test_smooth_activations_are_found(text, left):
    proto = model(text, {"one": 1.0, "minus": -1.0})
    made, counts = changed(proto, "smooth-activations")
    assert counts == {"smooth-activations": 1}
    assert operators(made) == left
    assert same(proto, made)


@pytest.mark.parametrize(
    "text",
    [
        "n = Neg(x) e = Exp(n) s = Add(e, two) y = Div(one, s)",
        "e = Exp(x) s = Add(e, one) y = Div(one, s)",
        "n = Neg(x) e = Exp(n) s = Add(e, one) y = Div(two, s)",
        "n = Neg(x) e = Exp(n) s = Add(e, one) y = Div(n, s)",
    ],
)
def test_what_only_looks_smooth_stays(text):
    proto = model(text, {"one": 1.0, "two": 2.0})
    assert changed(proto, "smooth-activations")[0] is proto


@pytest.mark.parametrize(
    "text", ["m = Mul(x, slope) y = Max(m, x)", "m = Mul(slope, x) y = Max(x, m)"]
)
def test_a_leaky_relu_is_found_for_slopes_below_one(text):
    proto = model(text, {"slope": 0.1})
    made, _ = changed(proto, "leaky-relus")
    assert operators(made) == ["LeakyRelu"]
    assert same(proto, made)
    for slope in (1.5, -0.1, 0.0):
        other = model(text, {"slope": slope})
        assert changed(other, "leaky-relus")[0] is other


def convolution(rng, outputs=12, inputs=8, window=(3, 3), group=1):
    return rng.standard_normal((outputs, inputs // group, *window)) / 3


@pytest.mark.parametrize("dtype", ["float", "double"])
@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize(
    "behind",
    [
        "y = Mul(c, s)",
        "y = Add(c, s)",
        "y = Sub(s, c)",
        "y = Div(c, s)",
        "m = Mul(c, s) y = Add(m, t)",
        "m = Mul(t, c) a = Add(m, u) y = Div(a, s)",
    ],
)
def test_what_is_behind_a_convolution_goes_into_it(behind, group, dtype):
    rng = np.random.default_rng(0)
    constants = {
        "w": convolution(rng, group=group),
        "b": rng.standard_normal(12),
        "s": [0.7],
        "t": rng.standard_normal((12, 1, 1)),
        "u": rng.standard_normal((1, 12, 1, 1)),
    }
    text = f"c = Conv <group: int = {group}, pads: ints = [1, 1, 1, 1]> (x, w, b) {behind}"
    proto = model(text, constants, dtype=dtype)
    made, counts = changed(proto, "fold-behind")
    assert counts == {"fold-behind": behind.count("=")}
    assert operators(made) == ["Conv"]
    assert same(proto, made, dtype=DTYPES[dtype])


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("pads", [0, 1])
@pytest.mark.parametrize(
    ("before", "has_shift"),
    [("m = Mul(x, s)", False), ("m = Div(x, t)", False), ("a = Add(x, s) m = Mul(a, t)", True)],
)
def test_what_is_before_a_convolution_goes_into_it(before, has_shift, pads, group):
    """A shift does so only where nothing is padded."""
    rng = np.random.default_rng(0)
    constants = {"w": convolution(rng, group=group), "s": 0.7, "t": rng.uniform(1, 2, (8, 1, 1))}
    window = f"group: int = {group}, pads: ints = [{pads}, {pads}, {pads}, {pads}]"
    proto = model(f"{before} y = Conv <{window}> (m, w)", constants)
    made, counts = changed(proto, "fold-before")
    assert same(proto, made)
    if has_shift and pads:
        assert operators(made) == ["Add", "Conv"]
    else:
        assert operators(made) == ["Conv"]
        assert counts == {"fold-before": before.count("=")}


def test_a_convolution_that_others_read_is_not_folded():
    rng = np.random.default_rng(0)
    constants = {"w": convolution(rng), "s": 0.7}
    text = "c = Conv(x, w) y = Mul(c, s) z = Neg(c)"
    proto = model(text, constants, outputs=("y", "z"))
    assert changed(proto, "fold-behind")[0] is proto


def test_numbers_that_would_not_be_finite_are_not_folded():
    rng = np.random.default_rng(0)
    for scale in (1e38, 1e-38):
        constants = {"w": 100 * convolution(rng) * (1 if scale > 1 else 1e-4), "s": scale}
        proto = model("c = Conv(x, w) y = Mul(c, s)", constants)
        assert changed(proto, "fold-behind")[0] is proto


def test_scales_between_convolutions_become_depthwise():
    rng = np.random.default_rng(0)
    constants = {
        "w": convolution(rng, 8),
        "v": convolution(rng, 8),
        "s": rng.uniform(1, 2, (8, 1, 1)),
        "t": 0.3,
    }
    text = (
        "c = Conv <pads: ints = [1, 1, 1, 1]> (x, w) r = Relu(c) m = Mul(r, s) a = Add(m, t) "
        "y = Conv <pads: ints = [1, 1, 1, 1]> (a, v)"
    )
    proto = model(text, constants)
    made, counts = changed(proto, "depthwise")
    assert counts == {"depthwise": 1}
    assert operators(made) == ["Conv", "Relu", "Conv", "Conv"]
    assert same(proto, made)


ROWS = (2, 8, 20)
ONE_AXIS = {
    "a chain": (
        "c = Conv <pads: ints = [1, 1]> (x, w) r = Relu(c) y = Conv <strides: ints = [2]> (r, v)"
    ),
    "a shortcut": (
        "c = Conv <pads: ints = [1, 1]> (x, w) r = Relu(c) "
        "d = Conv <pads: ints = [2, 2], dilations: ints = [2]> (r, v) y = Add(r, d)"
    ),
    "depthwise": "c = Conv <group: int = 8, pads: ints = [1, 1]> (x, u) y = Mul(c, s)",
    "a pool": "c = Conv(x, w, b) y = MaxPool <kernel_shape: ints = [2], strides: ints = [2]> (c)",
    "same size": 'y = Conv <auto_pad: string = "SAME_UPPER", strides: ints = [2]> (x, w)',
    "an input read twice": "c = Conv(x, w) d = Conv(x, v) y = Sub(c, d)",
    "something else between": "c = Conv(x, w) t = Softmax(c) y = Conv(t, v)",
}


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("text", ONE_AXIS.values(), ids=ONE_AXIS)
def test_convolutions_along_one_axis_become_rows_of_images(text, opset):
    rng = np.random.default_rng(0)
    constants = {
        "w": convolution(rng, 8, 8, (3,)),
        "v": convolution(rng, 8, 8, (3,)),
        "u": convolution(rng, 8, 8, (3,), 8),
        "b": rng.standard_normal(8),
        "s": rng.standard_normal((8, 1)),
    }
    proto = model(text, constants, image=ROWS, opset=opset)
    made, counts = changed(proto, "two-dimensional", image=ROWS)
    assert counts == {"two-dimensional": text.count("Conv")}
    assert same(proto, made, image=ROWS)
    between = operators(made).count("Unsqueeze"), operators(made).count("Squeeze")
    assert between == ((2, 2) if "Softmax" in text else (1, 1))


def test_weights_that_are_inputs_are_so_no_more():
    rng = np.random.default_rng(0)
    proto = model("y = Conv(x, w)", {"w": convolution(rng)}, opset=8, ir=4)
    proto.ir_version = 3
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, (12, 8, 3, 3)))
    made, counts = changed(proto, "unlist-weights")
    assert counts == {"unlist-weights": 1}
    assert [value.name for value in made.graph.input] == ["x"]
    assert made.ir_version == 4
    assert same(proto, made)


@pytest.mark.parametrize("listed", ["w", "s"])
def test_what_a_caller_may_replace_is_folded_only_once_it_is_no_input(listed):
    rng = np.random.default_rng(0)
    proto = model("c = Conv(x, w) y = Mul(c, s)", {"w": convolution(rng), "s": [0.7]})
    shape = next(tuple(t.dims) for t in proto.graph.initializer if t.name == listed)
    proto.graph.input.append(helper.make_tensor_value_info(listed, TensorProto.FLOAT, shape))
    assert changed(proto, "fold-behind")[0] is proto
    made, counts = changed(proto, "unlist-weights", "fold-behind")
    assert counts == {"unlist-weights": 1, "fold-behind": 1}
    assert same(proto, made)


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_that_finds_nothing_gives_the_model_back(name):
    proto = model("y = Neg(x)")
    assert changed(proto, name) == (proto, {})


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_changes_nothing_of_the_model_it_is_given(name):
    rng = np.random.default_rng(0)
    constants = {**SIX, "w": convolution(rng, 8), "s": 0.7}
    text = (
        "c = Conv <pads: ints = [1, 1, 1, 1]> (x, w) m = Mul(c, s) a = Add(m, three) "
        "d = Clip(a, zero, six) y = Div(d, six)"
    )
    proto = model(text, constants)
    before = proto.SerializeToString(deterministic=True)
    changed(proto, name)
    assert proto.SerializeToString(deterministic=True) == before


def test_all_passes_together_compute_the_same_and_find_nothing_more():
    rng = np.random.default_rng(0)
    constants = {**SIX, "w": convolution(rng, 8), "v": convolution(rng, 8), "s": 0.7}
    text = (
        "p = Mul(x, s) c = Conv <pads: ints = [1, 1, 1, 1]> (p, w) m = Mul(c, s) "
        "a = Add(m, three) d = Clip(a, zero, six) e = Mul(m, d) f = Div(e, six) g = Mul(f, s) "
        "h = Add(g, half) y = Conv <pads: ints = [1, 1, 1, 1]> (h, v)"
    )
    proto = model(text, constants)
    made, counts = changed(proto, *PASSES)
    assert {"hard-activations", "fold-behind", "fold-before", "depthwise"} <= set(counts)
    assert operators(made) == ["Conv", "HardSigmoid", "Mul", "Conv", "Conv"]
    assert same(proto, made)
    assert changed(made, *PASSES)[0] is made
