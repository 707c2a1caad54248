"""Deep models: rounding adds up to what no single layer makes, and a wrong chain is found still."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from written import change_values, edited, verify, write

from onnxcp.runtime.providers import Target
from onnxcp.verification import layerwise, recompose

DEPTH, WIDTH = 200, 8
GAIN = (
    3.0  # above 1 such a model is chaotic: what is apart by a rounding soon has nothing in common
)
NAMES = [f"c{'_' * i}" for i in range(DEPTH)]  # of lengths of their own, which seed the chains


def deep(path, depth=DEPTH):
    """Layers with sines in a row: chaos, as in untrained deep models (Poole et al. 2016,
    arXiv:1606.05340), without end."""
    rng = np.random.default_rng(3)
    nodes, stored, reading = [], [numpy_helper.from_array(np.float32(GAIN), "gain")], "x"
    for i, name in enumerate(NAMES[:depth]):
        values = rng.standard_normal((WIDTH, WIDTH, 1, 1)).astype(np.float32)
        stored.append(numpy_helper.from_array(values, f"w{i}"))
        nodes.append(helper.make_node("Conv", [reading, f"w{i}"], [f"y{i}"], name))
        nodes.append(helper.make_node("Mul", [f"y{i}", "gain"], [f"g{i}"]))
        nodes.append(helper.make_node("Sin", [f"g{i}"], [f"r{i}"]))
        reading = f"r{i}"
    declare = helper.make_tensor_value_info
    shape = [1, WIDTH, 4, 4]
    graph = helper.make_graph(
        nodes,
        "g",
        [declare("x", TensorProto.FLOAT, shape)],
        [declare(reading, TensorProto.FLOAT, shape)],
        stored,
    )
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deep")
    reference = deep(folder / "m.onnx")
    return reference, write(
        reference, folder / "c.onnx", dict.fromkeys(NAMES, "svd"), (1, WIDTH, 4, 4)
    )


def test_a_right_model_of_200_replaced_layers_passes(pair, monkeypatch):
    """Though its outputs differ by more than a single layer's may: else nothing is shown."""
    asked, apart = [], layerwise.differences
    monkeypatch.setattr(
        layerwise, "differences", lambda *given: asked.append(given) or apart(*given)
    )
    code, text = verify(*pair, "--require-surgery")
    assert code == 0, text[-500:]
    assert "surgery: 200 chains, exact to rounding" in text
    assert len(asked) == 1


def test_one_wrong_chain_of_200_is_named_and_no_other(pair, monkeypatch):
    """As a runtime would that computes one layer wrongly: here its kernel is bent."""
    bent = onnx.load(pair[1])
    wrong = next(t for t in bent.graph.initializer if t.name == f"{NAMES[150]}/cp/inputs.weight")
    weight, right = numpy_helper.to_array(wrong), recompose.kernel

    def kernel(chain):
        factor = 1.01 if np.array_equal(chain[0].weight, weight) else 1.0
        return right(chain) * factor

    monkeypatch.setattr(recompose, "kernel", kernel)
    code, text = verify(*pair)
    assert code == 1
    assert text.count("FAILED") == 1
    assert f"FAILED surgery: {NAMES[150]}: tensor 'y150' is not what the chains stand for" in text


@pytest.mark.parametrize("error", [0.0, 1e-5, 1e-2])
def test_the_difference_of_one_layer_is_its_own(tmp_path, error):
    """What is before it does not count: here the layers before are nothing alike."""
    one, two = deep(tmp_path / "one.onnx", 8), deep(tmp_path / "two.onnx", 8)
    edited(two, lambda proto: change_values(proto, "w2", lambda v: v[::-1]))
    edited(two, lambda proto: change_values(proto, "w5", lambda v: v * (1 + error)))
    sources = {"y2": "r1", "y5": "r4"}
    feeds = [{"x": np.random.default_rng(0).standard_normal((1, WIDTH, 4, 4)).astype("f")}]
    found = layerwise.differences(one, two, sources, Target.named("cpu", 1), feeds)
    assert found["y2"] > 0.1
    assert found["y5"] == pytest.approx(error, rel=0.01, abs=1e-6)
    assert layerwise.beyond(found, 1e-3) == (["y2", "y5"] if error > 1e-3 else ["y2"])
