import numpy as np
import onnx
import pytest

from onnxcp.verification.difference import compare
from onnxcp.verification.saturation import bounded

GRAPHS = {
    "Sigmoid": ("y = Sigmoid (x)", True),
    "moved": ("s = Softmax (x) t = Transpose (s) y = Identity (t)", True),
    "scaled": ("c = Constant <value_float = 9.0> () s = Sigmoid (x) y = Mul (s, c)", False),
    "Relu": ("y = Relu (x)", False),
}


@pytest.mark.parametrize("row", GRAPHS.values(), ids=GRAPHS)
def test_an_output_is_bounded_where_a_saturating_function_gives_it(row):
    text, expected = row
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) {{ {text} }}'
    )
    assert bounded(model.graph) == ({"y"} if expected else set())


def verdict(reference, candidate, bounded):
    given = [{"x": np.zeros(1, np.float32)}]
    values = [np.full((1, 1000), v, np.float32) for v in (reference, candidate)]
    runs = [lambda fed, v=v: [v] for v in values]
    return compare(*runs, ["y"], given, most_l2=1e-4, bounded=bounded)


def test_what_is_left_of_a_saturated_output_is_rounding():
    assert verdict(0.0, 6e-8, {"y"}).ok
    assert verdict(3e-8, 6e-8, {"y"}).ok
    assert not verdict(3e-8, 6e-8, {"other"}).ok


def test_a_bounded_output_that_says_something_is_judged_by_it():
    assert not verdict(0.5, 0.501, {"y"}).ok
    assert not verdict(0.0, 0.001, {"y"}).ok
