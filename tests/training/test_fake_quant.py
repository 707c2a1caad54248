"""The graph that training runs in place of an int8 model, and that it is the same model."""

import dataclasses

import numpy as np
import onnx
import pytest
from int8_machine import exact
from int8_models import DIGITS, FREE, NODES, TENSORS, kinds, samples, stored, tiny
from written import model, weight, write

torch = pytest.importorskip("torch")

from onnx.reference import ReferenceEvaluator

from onnxcp.data.roles import Sources
from onnxcp.data.roles import prepare as inputs_of
from onnxcp.errors import ParityError
from onnxcp.graph import io
from onnxcp.quantization.scheme import Scheme
from onnxcp.quantization.static import prepare
from onnxcp.torchgraph.module import Network
from onnxcp.torchgraph.parity import outputs
from onnxcp.training.fake_quant import simulated
from onnxcp.training.qat import check_steps

SCHEMES = {
    "as is": Scheme(),
    "a reduced range": Scheme(reduce_range=True),
    "per tensor": Scheme(per_channel=False),
    "signed activations": Scheme(activations="int8"),
    "unsigned weights": Scheme(weights="uint8"),
    "unsigned weights per tensor": Scheme(weights="uint8", per_channel=False),
    "unsigned weights of a reduced range": Scheme(weights="uint8", reduce_range=True),
    "clipped activations": Scheme(method="percentile", percentile=99),
    "float layers": Scheme(floats=("second", "join")),
}
PRODUCTS = """
    c = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu (c) d = Conv (r, v, b) s = Sigmoid (d)
    p = GlobalAveragePool (s) f = Flatten (p) g = Gemm <transB = 1> (f, u, b) m = MatMul (g, t)
    h = Gemm (m, i) y = Softmax (h)
"""
WEIGHTS = {
    "w": np.concatenate([weight(5, 4, 3, 3), np.zeros((1, 4, 3, 3))]),  # a dead channel
    "v": weight(6, 6, 2, 3),
    "b": np.arange(6) / 6,  # of three layers
    "u": weight(6, 6),
    "t": weight(6, 7),
    "i": weight(7, 5),
}


def products(tmp_path):
    return tiny(tmp_path, PRODUCTS, WEIGHTS, interface="float[N,4,9,8] x) => (float[N,k] y")


def chained(tmp_path):
    reference = model(tmp_path / "reference.onnx", NODES, TENSORS)
    return io.load(write(reference, tmp_path / "chained.onnx", {"second": "cp3"})).proto


def prepared(proto, scheme=None, given=None):
    given = samples() if given is None else given
    return prepare(proto, given, FREE, scheme or exact()).corrected()


def in_torch(proto, feeds):
    return outputs(Network(proto, ()), feeds)[0]


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_it_computes_what_the_runtime_does_in_int8(tmp_path, scheme):
    found = simulated(prepared(tiny(tmp_path), exact(scheme)))
    assert check_steps(found, samples().read(0, 8)) < 0.01


@pytest.mark.parametrize("make", [products, chained])
def test_so_it_does_for_other_products(tmp_path, make):
    found = simulated(prepared(make(tmp_path)))
    assert check_steps(found, samples().read(0, 8)) < 0.02


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_weights_are_rounded_to_what_the_quantizer_stores(tmp_path, scheme):
    if scheme.floats:
        scheme = dataclasses.replace(scheme, floats=())
    ready = prepared(products(tmp_path), scheme)
    found = simulated(ready)
    rounded = [n for n in found.graph.graph.node if n.op_type == "FakeQuantizeWeight"]
    assert len(rounded) == 5
    known = [n for n in found.int8.graph.node if n.op_type == "DequantizeLinear"]
    for node in rounded:
        twin = next(n for n in known if n.output == node.output)
        wanted = alone(twin, stored(found.int8))
        network = Network(one_node(node, stored(found.graph)[node.input[0]]))
        np.testing.assert_array_equal(network({})[0].detach().numpy(), wanted)


def alone(node, values):
    """What a node gives of stored tensors, as the standard's reference has it."""
    graph = onnx.helper.make_graph([node], "g", [], [onnx.ValueInfoProto(name=node.output[0])])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)])
    made.graph.initializer.extend(onnx.numpy_helper.from_array(values[n], n) for n in node.input)
    return ReferenceEvaluator(made).run(None, {})[0]


def one_node(node, values):
    tensor = onnx.numpy_helper.from_array(values, node.input[0])
    end = onnx.ValueInfoProto(name=node.output[0])
    return onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [end], [tensor]))


def test_activations_are_rounded_as_the_standard_says():
    x = np.linspace(-3, 5, 200, dtype=np.float32)
    node = onnx.helper.make_node(
        "FakeQuantize", ["x"], ["y"], domain="onnxcp", scale=0.02, zero_point=100, low=0, high=255
    )
    made = Network(one_node(node, x))({})[0].detach().numpy()
    steps = np.clip(np.rint(x / np.float32(0.02)) + 100, 0, 255)
    np.testing.assert_allclose(made, np.float32(0.02) * (steps - 100), atol=1e-6)


def test_gradients_pass_the_rounding_and_not_the_clipping():
    x = np.array([-3, -1, 0, 1, 9], np.float32)
    node = onnx.helper.make_node(
        "FakeQuantize", ["x"], ["y"], domain="onnxcp", scale=0.02, zero_point=100, low=0, high=255
    )
    network = Network(one_node(node, x))
    network({})[0].sum().backward()
    assert network.weights()["x"].grad.tolist() == [0, 1, 1, 1, 0]


def test_weights_get_the_whole_gradient():
    node = onnx.helper.make_node(
        "FakeQuantizeWeight", ["x"], ["y"], domain="onnxcp", axis=0, low=-127, high=127
    )
    network = Network(one_node(node, np.array([[0.3, -2.0], [0, 0]], np.float32)))
    network({})[0].sum().backward()
    assert network.weights()["x"].grad.tolist() == [[1, 1], [1, 1]]


def test_weights_and_biases_are_those_of_the_float_model(tmp_path):
    ready = prepared(products(tmp_path))
    graph = simulated(ready).graph
    assert set(WEIGHTS) <= set(stored(graph))
    for name, values in stored(ready.folded).items():
        np.testing.assert_array_equal(stored(graph)[name], values)
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(kinds(graph))


def test_other_weights_are_rounded_in_other_steps(tmp_path):
    """As the quantizer would: nothing is left of the steps that the first values had."""
    ready, feeds = prepared(chained(tmp_path)), samples().read(0, 4)
    changed = onnx.ModelProto()
    changed.CopyFrom(ready.folded)
    name = "second/cp/inputs.weight"
    tensor = next(t for t in changed.graph.initializer if t.name == name)
    values = onnx.numpy_helper.to_array(tensor) * 1.7
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
    network = Network(simulated(ready).graph, [name])
    network.load({name: torch.from_numpy(values)})
    found = simulated(dataclasses.replace(ready, folded=changed))
    assert check_steps(found, feeds) < 0.02
    np.testing.assert_array_equal(in_torch(found.graph, feeds), outputs(network, feeds)[0])


def not_rounded(node):
    node.op_type, node.domain = "Identity", ""
    del node.attribute[:]


def in_a_bit_less(node):
    for attribute in node.attribute:
        if attribute.name in ("low", "high"):
            attribute.i = int(attribute.i / 2)


def per_tensor(node):
    kept = [a for a in node.attribute if a.name != "axis"]
    del node.attribute[:]
    node.attribute.extend(kept)


@pytest.mark.parametrize("change", [not_rounded, in_a_bit_less, per_tensor])
def test_one_layer_that_rounds_otherwise_is_found(change):
    loaded = io.load(DIGITS)
    inputs = inputs_of(loaded.inputs, Sources(data=(str(DIGITS.with_suffix(".npz")),)))
    found = simulated(prepare(loaded.proto, inputs.calibration, FREE, exact()))
    feeds = inputs.samples.read(0, 2)
    assert check_steps(found, feeds) < 0.02
    nodes = [n for n in found.graph.graph.node if n.op_type == "FakeQuantizeWeight"]
    change(nodes[2])
    with pytest.raises(ParityError, match=r"'down/relu\.out': .* steps; rounding is half"):
        check_steps(found, feeds)
