"""float16 by ONNX Runtime's converter: what it computes, what it keeps, and what is refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from written import model, weight

from onnxcp.errors import ModelError
from onnxcp.graph import io
from onnxcp.quantization.float16 import halved
from onnxcp.quantization.precision import precision_of
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner

DIGITS = Path(__file__).parents[2] / "models/digits.onnx"
TARGET = Target.named("cpu", 1)
X = np.random.default_rng(0).standard_normal((2, 4, 9, 8)).astype(np.float32)
NODES = """
    [first] a = Conv <pads = [1, 1, 1, 1]> (x, w)
    [norm] b = BatchNormalization (a, scale, bias, mean, var)
    y = Relu (b)
"""
TENSORS = {
    "w": weight(6, 4, 3, 3),
    "scale": np.full(6, 0.5),
    "bias": np.arange(6) / 6,
    "mean": np.zeros(6),
    "var": np.ones(6),
}


def tiny(tmp_path, nodes=NODES, tensors=TENSORS, **more):
    return io.load(model(tmp_path / "model.onnx", nodes, tensors, **more)).proto


def outputs(proto, feeds=None):
    return open_runner(proto.SerializeToString(), TARGET)(feeds or {"x": X})


def close(proto, made, most=3e-3):
    for old, new in zip(outputs(proto), outputs(made), strict=True):
        assert new.dtype == np.float32
        assert np.linalg.norm(new - old) <= most * np.linalg.norm(old)


def casts(proto):
    return [(n.input[0], n.output[0]) for n in proto.graph.node if n.op_type == "Cast"]


def test_it_computes_nearly_the_same_from_float32_to_float32(tmp_path):
    proto = tiny(tmp_path)
    made = halved(proto)
    close(proto, made)
    assert {t.data_type for t in made.graph.initializer} == {onnx.TensorProto.FLOAT16}
    assert len(casts(made)) == 2


def test_names_and_metadata_stay_and_the_model_given_is_not_changed(tmp_path):
    proto = tiny(tmp_path)
    onnx.helper.set_model_props(proto, {"onnxcp.sites": "first"})
    before = proto.SerializeToString(deterministic=True)
    made = halved(proto)
    assert proto.SerializeToString(deterministic=True) == before
    assert {"first", "norm"} <= {n.name for n in made.graph.node}
    assert list(made.graph.input) == list(proto.graph.input)
    assert list(made.graph.output) == list(proto.graph.output)
    assert list(made.metadata_props) == list(proto.metadata_props)
    assert halved(proto).SerializeToString() == made.SerializeToString()


def test_casts_for_operators_that_stay_in_float32_are_made_once_and_in_order(tmp_path):
    nodes = "a = Relu (x) b = Max (a, s) c = Min (a, s) d = Add (b, c) y = Mul (d, s)"
    made = halved(tiny(tmp_path, nodes, {"s": np.full(1, 0.25)}))
    onnx.checker.check_model(made)
    assert [source for source, _ in casts(made)].count("a") == 1
    close(tiny(tmp_path, nodes, {"s": np.full(1, 0.25)}), made)


def test_scales_of_a_resize_are_not_rounded(tmp_path):
    """1.3 in float16 is less, and of ten rows it would make twelve."""
    nodes = """s = Constant <value_floats = [1.0, 1.0, 1.3, 1.0]> ()
        a = Resize <mode = "nearest"> (x, , s) f = Constant <value_float = 2.0> () y = Mul (a, f)"""
    proto = tiny(tmp_path, nodes, {}, interface="float[1,1,10,2] x) => (float[1,1,n,2] y")
    made = halved(proto)
    x = np.arange(20, dtype=np.float32).reshape(1, 1, 10, 2)
    (old,), (new,) = outputs(proto, {"x": x}), outputs(made, {"x": x})
    np.testing.assert_allclose(new, old, rtol=2e-3)
    assert old.shape == (1, 1, 13, 2)


def test_numbers_too_large_for_float16_stay_in_float32(tmp_path):
    proto = tiny(tmp_path, tensors=TENSORS | {"var": np.full(6, 1e6), "bias": np.zeros(6)})
    made = halved(proto)
    close(proto, made)
    kinds = {t.name: t.data_type for t in made.graph.initializer}
    assert (kinds["w"], kinds["var"]) == (onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT)


@pytest.mark.parametrize("ir", [3, 8])
def test_stored_tensors_that_are_inputs_too_are_rounded(tmp_path, ir):
    proto = tiny(tmp_path, "y = Conv (x, w)", {"w": TENSORS["w"]}, ir=ir)
    made = halved(proto)
    assert [i.name for i in made.graph.input] == ["x"]
    close(proto, made)


def test_local_functions_are_put_where_they_are_called(tmp_path):
    functions = """<domain: "local", opset_import: ["" : 13]> twice (a) => (b) {
        two = Constant <value = float {2}> () b = Mul (a, two) }"""
    proto = tiny(tmp_path, "c = Conv (x, w) y = local.twice (c)", {"w": TENSORS["w"]},
                 functions=functions)  # fmt: skip
    close(proto, halved(proto))


def test_digits_are_told_apart_as_before():
    proto = io.load(DIGITS).proto
    with np.load(DIGITS.with_suffix(".npz")) as data:
        (name,) = (i.name for i in proto.graph.input)
        feeds = {name: data[name][:64].astype(np.float32)}
    old, new = (outputs(p, feeds)[0].argmax(1) for p in (proto, halved(proto)))
    assert (old == new).mean() > 0.98


REFUSED = {
    "float16": ({"dtype": np.float16}, "a float16 model"),
    "float64": ({"dtype": np.float64}, "a float64 model"),
    "quantized": (
        {"nodes": "q = QuantizeLinear (x, s) d = DequantizeLinear (q, s) y = Conv (d, w)",
         "tensors": {"w": TENSORS["w"], "s": np.array(0.1)}},
        "quantized in part",
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", REFUSED.values(), ids=REFUSED)
def test_another_precision_is_left_alone_with_the_reason(tmp_path, row):
    changes, message = row
    with pytest.raises(ModelError, match=rf"m\.onnx: {message}.*give such a model"):
        halved(tiny(tmp_path, **changes), where="m.onnx")


def test_a_model_too_large_for_one_message_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(io, "LARGEST_MESSAGE", 100)
    with pytest.raises(ModelError, match="over 2 GiB"):
        halved(tiny(tmp_path))


def test_what_the_converter_can_not_take_is_said(tmp_path):
    """It wants the names of both branches to differ."""
    nodes = """c = Constant <value_int = 1> () t = Cast <to = 9> (c)
        y = If (t) <then_branch = one () => (float[N,4,9,8] i)
            <float[1] s = {2}> { i = Mul (x, s) },
        else_branch = two () => (float[N,4,9,8] j) <float[1] s = {3}> { j = Mul (x, s) }>"""
    proto = tiny(tmp_path, nodes, {})
    with pytest.raises(ModelError, match=r"m\.onnx: .*float16.*; keep it in float32"):
        halved(proto, where="m.onnx")


def test_the_precision_of_a_model_is_known_by_what_it_stores(tmp_path):
    assert precision_of(tiny(tmp_path)) == "float32"
    assert precision_of(halved(tiny(tmp_path))) == "float16"
    assert precision_of(tiny(tmp_path, dtype=np.float64)) == "float64"
