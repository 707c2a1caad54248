"""Models that ONNX Runtime runs and the ONNX checker refuses are worked on, and it is said."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from onnxcp.cli import app
from onnxcp.errors import ModelError
from onnxcp.graph import io

pytestmark = pytest.mark.usefixtures("quiet")  # no claim here is about time

SHAPE = (1, 8, 6, 6)
X = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)


def value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE)


def weight(seed: int = 0) -> onnx.TensorProto:
    values = np.random.default_rng(seed).standard_normal((8, 8, 3, 3)) / 9
    return numpy_helper.from_array(values.astype(np.float32), "w")


def plain(ir: int = 8, op: str = "Relu", domain: str = "") -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node(op, ["c"], ["y"], domain=domain),
    ]
    graph = helper.make_graph(nodes, "g", [value("x")], [value("y")], [weight()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=ir)


def edited(change: Callable[[onnx.ModelProto], object], **kind: object) -> onnx.ModelProto:
    made = plain(**kind)
    change(made)
    return made


def swap(made: onnx.ModelProto) -> None:
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in made.graph.node]
    del made.graph.node[:]
    made.graph.node.extend(reversed(nodes))


def repeat_metadata(made: onnx.ModelProto) -> None:
    for text in ("one", "two"):
        made.metadata_props.add(key="k", value=text)


CASES: dict[str, tuple[onnx.ModelProto, str]] = {
    "IR 3 without listed weights": (plain(ir=3), "IR version 3 became 4"),
    "IR 2 with an opset": (plain(ir=2), "IR version 2 became 4"),
    "an output without shape": (
        edited(lambda m: m.graph.output[0].type.tensor_type.ClearField("shape")),
        "the shape of outputs was added: 'y'",
    ),
    "an output without type": (
        edited(lambda m: m.graph.output[0].ClearField("type")),
        "the shape of outputs was added: 'y'",
    ),
    "a graph without name": (edited(lambda m: setattr(m.graph, "name", "")), "a name now"),
    "nodes in another order": (edited(swap), "order in which they can run"),
    "a weight stored twice": (
        edited(lambda m: m.graph.initializer.append(weight(7))),
        "the first was kept: 'w'",
    ),
    "a weight in two fields": (
        edited(lambda m: m.graph.initializer[0].float_data.append(1.0)),
        "beside the raw ones were dropped: 'w'",
    ),
    "the standard's other name": (
        edited(lambda m: setattr(m.graph.node[0], "domain", "ai.onnx")),
        "agree about the domain ai.onnx",
    ),
    "a domain without import": (
        plain(op="Gelu", domain="com.microsoft"),
        "agree about the domain com.microsoft",
    ),
    "metadata twice under one key": (edited(repeat_metadata), "the last was kept: 'k'"),
}


def run(model: bytes) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})[0]


def saved(folder: Path, made: onnx.ModelProto) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(made.SerializeToString())
    return path


@pytest.mark.parametrize("case", CASES)
def test_what_the_runtime_runs_is_repaired_and_computes_the_same(tmp_path, case):
    made, note = CASES[case]
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(made)
    model = io.load(saved(tmp_path, made))
    onnx.checker.check_model(model.proto)
    assert note in " ".join(model.notes)
    np.testing.assert_array_equal(
        run(model.proto.SerializeToString()), run(made.SerializeToString())
    )


def test_a_model_that_the_checker_accepts_is_read_as_it_is(tmp_path):
    made = plain()
    model = io.load(saved(tmp_path, made))
    assert model.proto == made
    assert not model.notes


def test_what_cannot_be_repaired_is_taken_where_the_runtime_takes_it(tmp_path):
    made = edited(lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"))
    model = io.load(saved(tmp_path, made))
    assert model.proto == made
    assert "it is taken because ONNX Runtime loads it" in " ".join(model.notes)


def test_what_neither_takes_is_refused_with_both_causes(tmp_path):
    made = plain(op="NoSuchOperator")
    with pytest.raises(ModelError, match=r"the ONNX checker refuses it: .*ONNX Runtime reports: "):
        io.load(saved(tmp_path, made))


def test_external_data_of_a_repaired_model_are_read(tmp_path):
    made = edited(lambda m: setattr(m.graph, "name", ""))
    path = tmp_path / "m.onnx"
    onnx.save_model(made, path, save_as_external_data=True, location="m.data", size_threshold=16)
    model = io.load(path)
    assert "the graph has a name now" in " ".join(model.notes)
    np.testing.assert_array_equal(
        numpy_helper.to_array(model.proto.graph.initializer[0]), numpy_helper.to_array(weight())
    )


@pytest.mark.parametrize("case", ["IR 3 without listed weights", "nodes in another order"])
def test_a_repaired_model_is_optimized_verified_and_reported(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    made, note = CASES[case]
    saved(tmp_path, made)
    options = "--rank *=4 --form svd --jobs 1 --threads 1 --iterations 8 --no-cache"
    result = CliRunner().invoke(app, ["optimize", "m.onnx", "-o", "o.onnx", *options.split()])
    assert result.exit_code == 0, result.output
    assert note in " ".join(result.output.split())
    onnx.checker.check_model("o.onnx", full_check=True)
    assert run(Path("o.onnx").read_bytes()).shape == SHAPE
    result = CliRunner().invoke(app, ["verify", "m.onnx", "o.onnx"])
    assert result.exit_code == 0, result.output


def test_inspect_says_what_was_repaired(tmp_path):
    path = saved(tmp_path, plain(ir=3))
    result = CliRunner().invoke(app, ["inspect", str(path)])
    assert "IR version 3 became 4" in " ".join(result.output.split())
