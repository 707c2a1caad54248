"""What the proof of exact passes sees: values, weights and outputs that are gone."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxcp.runtime.providers import Target
from onnxcp.verification.exact import prove

FEEDS = [{"x": np.linspace(-4, 4, 8, dtype=np.float32)}]
WRITTEN_OUT = "a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six) z = Identity(x)"
HARD = "y = HardSigmoid <alpha: float = 0.16666667, beta: float = 0.5> (x) z = Identity(x)"
OUTPUTS = "float[8] y, float[8] z"


def model(text, outputs=OUTPUTS, **changed):
    head = '<ir_version: 8, opset_import: ["" : 17]> g'
    proto = onnx.parser.parse_model(f"{head} (float[8] x) => ({outputs}) {{ {text} }}")
    stored = {"three": 3.0, "zero": 0.0, "six": 6.0, **changed}
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.float32(number), name) for name, number in stored.items()
    )
    return proto


def failures(changed):
    return prove(model(WRITTEN_OUT), changed, FEEDS, Target.named("cpu", 1)).failures


def test_an_equal_change_is_proven():
    assert failures(model(HARD)) == ()


def test_an_output_that_is_read_as_it_is_fed_needs_no_node():
    outputs = "float[8] y, float[8] x"
    text = WRITTEN_OUT.replace(" z = Identity(x)", "")
    original, changed = model(text, outputs), model(HARD.replace(" z = Identity(x)", ""), outputs)
    assert prove(original, changed, FEEDS, Target.named("cpu", 1)).failures == ()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (model(HARD.replace("0.5", "0.45")), "tensor 'y' is not what it was"),
        (model(HARD.replace(" z = Identity(x)", "")), "output 'z' is made no more"),
        (model(HARD, six=6.5), "weight 'six' has other values"),
    ],
    ids=["a value", "an output", "a weight"],
)
def test_what_differs_is_named(changed, said):
    assert any(said in failure for failure in failures(changed))
