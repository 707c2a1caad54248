"""Convolutions of images that read 2×2 blocks in int8: the same integers, and only where they
read an image of few channels at every second pixel. The oracle is ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from int8_machine import exact, weight_range

from onnxcp.data.samples import Batching, Samples
from onnxcp.quantization import space_to_depth
from onnxcp.quantization.static import prepare

RNG = np.random.default_rng(0)


def quantized(
    channels=3, window=(7, 7), pads=(3, 3, 3, 3), image=(16, 16), weights=np.int8, convs=1, **more
):
    """An int8 model, x → [y]: convolutions with weights of their own."""
    attributes = {"strides": [2, 2], "pads": pads, **more}
    low, high = weight_range(weights)
    stored = {"sx": np.float32(0.02), "zx": np.uint8(120), "sy": np.float32(0.9)}
    stored["zy"] = np.uint8(128)
    node, nodes = onnx.helper.make_node, []
    nodes.append(node("QuantizeLinear", ["x", "sx", "zx"], ["q"], "round"))
    nodes.append(node("DequantizeLinear", ["q", "sx", "zx"], ["d"], "restore"))
    for number in range(convs):
        shape = (5, channels, *window)
        stored[f"w{number}"] = RNG.integers(low, high, shape, weights, endpoint=True)
        stored[f"s{number}"] = RNG.uniform(0.01, 0.02, 5).astype(np.float32)
        zeros = np.zeros(5, weights) if weights == np.int8 else RNG.integers(90, 160, 5, weights)
        stored[f"z{number}"] = zeros
        reads = [f"{kind}{number}" for kind in "wsz"]
        nodes.append(node("DequantizeLinear", reads, [f"f{number}"], f"widen{number}", axis=0))
        nodes.append(
            node("Conv", ["d", f"f{number}"], [f"c{number}"], f"conv{number}", **attributes)
        )
        nodes.append(
            node("QuantizeLinear", [f"c{number}", "sy", "zy"], [f"y{number}"], f"r{number}")
        )
    value = onnx.helper.make_tensor_value_info
    fed = value("x", onnx.TensorProto.FLOAT, ["n", channels, *image])
    made = [value(f"y{number}", onnx.TensorProto.UINT8, [None] * 4) for number in range(convs)]
    tensors = [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in stored.items()]
    graph = onnx.helper.make_graph(nodes, "stem", [fed], made, tensors)
    return onnx.helper.make_model(
        graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 13)]
    )


def ran(model, image):
    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": image})


def folded(model):
    made = onnx.ModelProto()
    made.CopyFrom(model)
    space_to_depth.fold(made)
    return made


def operators(model):
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("seed", range(60))
def test_the_integers_are_the_same(seed):
    rng = np.random.default_rng(seed)
    channels, weights = int(rng.integers(1, 4)), (np.int8, np.uint8)[seed % 2]
    window = tuple(map(int, rng.integers(1, 8, 2)))
    pads, image = rng.integers(0, 5, 4).tolist(), (2 * rng.integers(4, 10, 2)).tolist()
    model = quantized(channels, window, pads, image, weights)
    made = folded(model)
    onnx.checker.check_model(made, full_check=True)
    assert ("SpaceToDepth" in operators(made)) == (max(window) > 1)
    assert len(made.graph.initializer) == len(model.graph.initializer)
    x = np.random.default_rng(1).standard_normal((2, channels, *image)).astype(np.float32)
    for one, other in zip(ran(model, x), ran(made, x), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_written_reads_blocks():
    made = folded(quantized())
    assert operators(made).count("SpaceToDepth") == 1
    conv = next(n for n in made.graph.node if n.op_type == "Conv")
    assert conv.name == "conv0"
    assert {a.name: list(a.ints) for a in conv.attribute} == {
        "kernel_shape": [4, 4],
        "strides": [1, 1],
        "pads": [2, 2, 1, 1],
    }
    assert not {"round", "restore", "widen0"} & {n.name for n in made.graph.node}


def test_two_that_read_one_image_both_do():
    model = quantized(convs=2)
    made = folded(model)
    assert operators(made).count("SpaceToDepth") == 2
    onnx.checker.check_model(made, full_check=True)
    x = RNG.standard_normal((1, 3, 16, 16)).astype(np.float32)
    for one, other in zip(ran(model, x), ran(made, x), strict=True):
        np.testing.assert_array_equal(one, other)


def test_auto_pad_is_made_explicit():
    model = quantized(window=(3, 3), pads=None, auto_pad="SAME_UPPER")
    made = folded(model)
    assert "SpaceToDepth" in operators(made)
    x = RNG.standard_normal((1, 3, 16, 16)).astype(np.float32)
    np.testing.assert_array_equal(ran(model, x)[0], ran(made, x)[0])


def test_a_float_model_is_deployed_so_and_trained_as_it_is():
    weight = onnx.numpy_helper.from_array(RNG.standard_normal((5, 3, 3, 3)).astype(np.float32), "w")
    conv = onnx.helper.make_node("Conv", ["x", "w"], ["y"], "conv", strides=[2, 2], pads=[1] * 4)
    value, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    ends = value("x", kind, ["n", 3, 16, 16]), value("y", kind, [None] * 4)
    graph = onnx.helper.make_graph([conv], "one", ends[:1], ends[1:], [weight])
    opsets = [onnx.helper.make_opsetid("", 13)]
    proto = onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets)
    images = RNG.standard_normal((16, 3, 16, 16)).astype(np.float32)
    given = Samples(lambda numbers: {"x": images[list(numbers)]}, range(16), None, "made.npz")
    ready = prepare(proto, given, Batching(4, fixed=False), exact())
    plain, deployed = ready.quantized(), ready.deployed()
    assert ("SpaceToDepth" in operators(plain), "SpaceToDepth" in operators(deployed)) == (0, 1)
    np.testing.assert_array_equal(ran(plain, images)[0], ran(deployed, images)[0])


def of_any_size(model):
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "h"
    return model


def read_behind_another(model):
    """The image goes through a node first."""
    model.graph.node.insert(0, onnx.helper.make_node("Neg", ["x"], ["n"], "neg"))
    model.graph.node[1].input[0] = "n"
    return model


LEFT = {
    "four channels": lambda: quantized(channels=4),
    "every pixel": lambda: quantized(strides=[1, 1]),
    "every fourth pixel": lambda: quantized(strides=[4, 4]),
    "one axis": lambda: quantized(strides=[2, 1]),
    "dilated": lambda: quantized(window=(3, 3), dilations=[2, 2]),
    "depthwise": lambda: grouped(),
    "no window": lambda: quantized(window=(1, 1), pads=(0, 0, 0, 0)),
    "an odd image": lambda: quantized(image=(15, 16)),
    "an image cut": lambda: quantized(window=(3, 3), pads=(-1, 0, 0, 0)),
    "an image of any size": lambda: of_any_size(quantized()),
    "not the image": lambda: read_behind_another(quantized()),
}


def grouped():
    model = quantized(channels=1)
    conv = next(n for n in model.graph.node if n.op_type == "Conv")
    conv.attribute.append(onnx.helper.make_attribute("group", 5))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    return model


@pytest.mark.parametrize("key", LEFT)
def test_what_is_no_stem_is_left(key):
    model = LEFT[key]()
    assert folded(model).SerializeToString() == model.SerializeToString()
