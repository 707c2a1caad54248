"""What rounding of weights shifts means by, and what is taken back of it."""

import numpy as np
import onnx
import pytest
from int8_models import outputs, samples, tiny
from written import weight

from onnxcp.data.samples import Batching
from onnxcp.quantization import bias_correction, static
from onnxcp.quantization.bias_correction import Patches
from onnxcp.quantization.scheme import Scheme

IMAGE, ROW = "float[N,4,9,8] x) => (float[N,a,b,c] y", "float[N,12] x) => (float[N,a] y"
NODES = {  # nodes, shapes of weights, interface, shape of a sample
    "a bias": ("[p] y = Conv (x, w, b)", {"w": (6, 4, 3, 3), "b": (6,)}, IMAGE, (4, 9, 8)),
    "none": ("[p] y = Conv (x, w)", {"w": (6, 4, 3, 3)}, IMAGE, (4, 9, 8)),
    "padding": ("[p] y = Conv <pads = [2, 0, 1, 1]> (x, w)", {"w": (6, 4, 3, 3)}, IMAGE, (4, 9, 8)),
    "SAME_UPPER": (
        '[p] y = Conv <auto_pad = "SAME_UPPER", strides = [2, 3]> (x, w)',
        {"w": (6, 4, 4, 3)},
        IMAGE,
        (4, 9, 8),
    ),
    "strides and dilations": (
        "[p] y = Conv <strides = [2, 3], dilations = [2, 1], pads = [1, 1, 1, 1]> (x, w)",
        {"w": (6, 4, 3, 3)},
        IMAGE,
        (4, 9, 8),
    ),
    "depthwise": (
        "[p] y = Conv <group = 4, pads = [1, 1, 1, 1]> (x, w)",
        {"w": (8, 1, 3, 3)},
        IMAGE,
        (4, 9, 8),
    ),
    "groups": ("[p] y = Conv <group = 2> (x, w)", {"w": (6, 2, 3, 3)}, IMAGE, (4, 9, 8)),
    "one dimension": (
        "[p] y = Conv <pads = [1, 1]> (x, w)",
        {"w": (6, 4, 3)},
        "float[N,4,9] x) => (float[N,a,b] y",
        (4, 9),
    ),
    "Gemm": ("[p] y = Gemm (x, w)", {"w": (12, 5)}, ROW, (12,)),
    "Gemm, turned": (
        "[p] y = Gemm <transB = 1> (x, w, b)",
        {"w": (5, 12), "b": (5,)},
        ROW,
        (12,),
    ),
}


def positive(shape):
    """Samples whose mean is far from zero."""
    return samples(values=np.abs(samples(shape=shape).read(0, 16)["x"]) + 1, shape=shape)


def coarse(kernel):
    return np.round(kernel * 4) / 4


def with_coarse(proto, name="w"):
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    tensor = next(t for t in made.graph.initializer if t.name == name)
    values = coarse(onnx.numpy_helper.to_array(tensor))
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
    return made, values


@pytest.mark.parametrize("row", NODES.values(), ids=NODES)
def test_the_mean_of_every_channel_is_as_before_rounding(tmp_path, row):
    nodes, shapes, interface, shape = row
    tensors = {name: weight(*sizes) for name, sizes in shapes.items()}
    proto, given = tiny(tmp_path, nodes, tensors, interface=interface), positive(shape)
    patches = Patches.of(proto.graph, ["p"])
    for feeds in given.batches(5):  # the last is smaller
        patches.add(feeds)
    rounded, values = with_coarse(proto)
    bias_correction.correct(proto.graph, {"p": values}, patches.means())
    corrected, _ = with_coarse(proto)
    feeds = given.read(0, 16)
    before = outputs(tiny(tmp_path, nodes, tensors, interface=interface), feeds)
    shifted, after = outputs(rounded, feeds), outputs(corrected, feeds)
    axes = (0, *range(2, before.ndim))
    assert np.abs((shifted - before).mean(axes)).max() > 0.02
    np.testing.assert_allclose(after.mean(axes), before.mean(axes), atol=1e-5)


def test_a_bias_that_others_read_stays_theirs(tmp_path):
    nodes = "[p] a = Conv (x, w, b) [q] c = Conv (x, v, b) y = Add (a, c)"
    tensors = {"w": weight(6, 4, 3, 3), "v": weight(6, 4, 3, 3), "b": weight(6)}
    proto = tiny(tmp_path, nodes, tensors)
    patches = Patches.of(proto.graph, ["p"])
    patches.add(positive((4, 9, 8)).read(0, 16))
    bias_correction.correct(proto.graph, {"p": coarse(tensors["w"])}, patches.means())
    one, two = (n.input[2] for n in proto.graph.node if n.op_type == "Conv")
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    np.testing.assert_allclose(stored[two], tensors["b"], rtol=1e-6)
    assert np.abs(stored[one] - stored[two]).max() > 0.01


REFUSED = {
    "a MatMul has no bias": ("y = MatMul (x, w)", {"w": (12, 5)}),
    "its bias is computed": ("b = ReduceMax <axes = [0]> (x) y = Gemm (x, w, b)", {"w": (12, 12)}),
    "its bias differs from row to row": (
        "y = Gemm (x, w, b)",
        {"w": (12, 5), "b": (16, 5)},
    ),
    "no plain product: scaled alpha=2": ("y = Gemm <alpha = 2.0> (x, w)", {"w": (12, 5)}),
    "no plain product: first": ("y = MatMul (w, x)", {"w": (5, 16)}),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_not_corrected_is_told_with_the_reason(tmp_path, reason):
    nodes, shapes = REFUSED[reason]
    tensors = {name: weight(*sizes) for name, sizes in shapes.items()}
    proto = tiny(tmp_path, nodes, tensors, interface="float[16,12] x) => (float[a,b] y")
    proto.graph.node[-1].name = "p"
    assert bias_correction.refusals(proto.graph, ["p"]) == {"p": reason}
    assert Patches.of(proto.graph, ["p"]).nodes == ()


def test_int8_keeps_the_means_of_convolutions_and_gives_them_biases(tmp_path):
    nodes = """[one] a = Conv <pads = [1, 1, 1, 1]> (x, w) [r] c = Relu (a)
        [two] y = Conv (c, v)"""
    tensors = {"w": weight(6, 4, 3, 3), "v": weight(300, 6, 3, 3)}
    proto, given = tiny(tmp_path, nodes, tensors), positive((4, 9, 8))
    batching, feeds = Batching(8, fixed=False), given.read(0, 16)
    shifts = {}
    for does in (False, True):
        scheme = Scheme(correct_bias=does)
        prepared = static.prepare(proto, given, batching, scheme)
        made = prepared.quantized()
        floats = outputs(static.dequantised(made), feeds)
        shifts[does] = np.abs((floats - outputs(proto, feeds)).mean((0, 2, 3))).mean()
        assert prepared.uncorrected == {}
        convolutions = [n for n in made.graph.node if n.op_type == "Conv"]
        assert [len(n.input) for n in convolutions] == [3 if does else 2] * 2
    assert shifts[True] < shifts[False] / 2


def test_a_prepared_model_names_what_is_not_corrected(tmp_path):
    nodes, tensors = "[p] a = Conv (x, w) [m] y = MatMul (a, v)", {"w": weight(6, 4, 3, 3)}
    proto = tiny(tmp_path, nodes, {**tensors, "v": weight(6, 5)})
    prepared = static.prepare(proto, samples(), Batching(8, fixed=False), Scheme())
    assert prepared.uncorrected == {"m": "a MatMul has no bias"}
    assert list(prepared.patches) == ["p"]


def test_a_second_int8_model_of_the_same_is_equal(tmp_path):
    prepared = static.prepare(tiny(tmp_path), samples(), Batching(8, fixed=False), Scheme())
    assert prepared.quantized().SerializeToString() == prepared.quantized().SerializeToString()
