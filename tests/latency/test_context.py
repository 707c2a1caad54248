"""Contexts: the node, what fuses with it, and what they read."""

import numpy as np
import onnx
import pytest
from rounding import assert_same_sums, magnitude

from onnxcp.errors import UsageError
from onnxcp.graph import shapes, sites
from onnxcp.latency.candidates import chain_of
from onnxcp.latency.context import Graph
from onnxcp.plan import Choice
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner

CPU = Target.named("cpu", threads=1)
RNG = np.random.default_rng(0)
HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[1,16,8,8] x) => (float[1,16,8,8] y) '
CONV = "{ a = Conv <pads = [1,1,1,1]> (x, w) "
BODIES = {  # nodes after the convolution → the types of its context
    "nothing": ("y = Softmax (a) }", ["Conv"]),
    "an activation": ("y = Relu (a) }", ["Conv", "Relu"]),
    "an activation and more": ("b = Relu (a) y = Add (b, x) }", ["Conv", "Relu"]),
    "a shortcut": ("b = Add (a, x) y = Relu (b) }", ["Conv", "Add", "Relu"]),
    "a shortcut first": ("b = Add (x, a) y = Relu (b) }", ["Conv", "Add", "Relu"]),
    "a constant": ("b = Add (a, k) y = Relu (b) }", ["Conv", "Add", "Relu"]),
    "two shortcuts": ("b = Add (a, x) c = Add (b, x) y = Relu (c) }", ["Conv", "Add"]),
    "two readers": ("b = Relu (a) c = Sigmoid (a) y = Add (b, c) }", ["Conv"]),
    "what nothing tells the shape of": ("u = Odd (x) y = Add (a, u) }", ["Conv"]),
    "a pool": (
        "b = Relu (a) y = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (b) }",
        ["Conv", "Relu", "MaxPool"],
    ),
    "a pool at once": (
        "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a) }",
        ["Conv", "AveragePool"],
    ),
    "limits": ("y = Clip (a, low, high) }", ["Conv", "Clip"]),
}


def model(body, **changed):
    text = HEAD.replace("g (", "g (") + CONV + body
    made = onnx.parser.parse_model(text)
    stored = {
        "w": RNG.standard_normal((16, 16, 3, 3)),
        "k": RNG.standard_normal((16, 1, 1)),
        "low": np.array(-1.0),
        "high": np.array(1.0),
        **changed,
    }
    for name, values in stored.items():
        tensor = onnx.numpy_helper.from_array(values.astype(np.float32), name)
        made.graph.initializer.append(tensor)
    return made


def context(proto):
    known = shapes.infer(proto, {"x": (1, 16, 8, 8)})
    (site,), _ = sites.find(proto, known)
    return Graph(proto, known).context(site)


@pytest.mark.parametrize("row", BODIES.values(), ids=BODIES)
def test_a_site_is_seen_with_what_could_fuse(row):
    body, types = row
    assert [node.op_type for node in context(model(body)).nodes] == types


@pytest.mark.parametrize("row", [r for r in BODIES.values() if "Odd" not in r[0]])
def test_a_context_runs_with_and_without_a_chain(row):
    made = context(model(row[0]))
    feeds = made.feeds(np.random.default_rng(1))
    chain = chain_of(made.site, Choice("cp3", 16), np.random.default_rng(2))
    outputs = [open_runner(made.model(c), CPU)(feeds)[0] for c in (None, chain)]
    assert outputs[0].shape == outputs[1].shape == (1, 16, 8, 8)


def test_a_context_computes_what_its_model_computes():
    proto = model("b = Add (a, x) y = Relu (b) }")
    feeds = {"x": RNG.standard_normal((1, 16, 8, 8)).astype(np.float32)}
    alone = open_runner(context(proto).model(None), CPU)(feeds)[0]
    whole = open_runner(proto.SerializeToString(), CPU)(feeds)[0]
    assert_same_sums(alone, whole, magnitude(proto, feeds), terms=9 * 16 + 1)


def test_weights_and_names_make_no_difference_to_time():
    one = model("y = Relu (a) }")
    other = model("y = Relu (a) }", w=RNG.standard_normal((16, 16, 3, 3)))
    assert context(one).key == context(other).key


@pytest.mark.parametrize(
    "changed",
    [
        model("b = Add (a, x) y = Relu (b) }"),
        model("y = LeakyRelu (a) }"),
        model("y = Relu (a) }", w=RNG.standard_normal((16, 16, 1, 1))),
    ],
    ids=["a shortcut", "another activation", "another window"],
)
def test_what_makes_a_difference_to_time_makes_one_to_the_key(changed):
    assert context(changed).key != context(model("y = Relu (a) }")).key


def test_weights_that_are_inputs_stay_inputs():
    proto = model("y = Relu (a) }")
    info = onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, (16, 16, 3, 3))
    proto.graph.input.append(info)
    made = onnx.load_from_string(context(proto).model(None))
    assert [i.name for i in made.graph.input] == ["x", "w"]
    assert context(proto).key != context(model("y = Relu (a) }")).key


def test_a_site_of_unknown_size_says_what_to_pass():
    proto = model("y = Relu (a) }")
    (site,), _ = sites.find(proto, {})
    with pytest.raises(UsageError, match="input_shape"):
        Graph(proto, {}).context(site)
