"""`verify` of int8 and float16 models: what of the surgery shows, and where errors are from."""

import json
from pathlib import Path

import numpy as np
import pytest
from int8_models import NODES, TENSORS, int8, outputs, relative
from typer.testing import CliRunner
from written import change_values, edited, model, verify, weight, write

from onnxcp.cli import app
from onnxcp.graph import io
from onnxcp.quantization.dequantize import dequantised
from onnxcp.quantization.float16 import halved

X = np.random.default_rng(0).standard_normal((20, 4, 9, 8)).astype(np.float32)
MODELS = ("m.onnx", "q.onnx")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """m.onnx, its chains in c.onnx, and their int8 form in q.onnx."""
    monkeypatch.chdir(tmp_path)
    np.savez("d.npz", x=X)
    write(model(Path("m.onnx"), NODES, TENSORS), Path("c.onnx"), {"second": "cp3"})
    saved("q.onnx", int8(loaded("c.onnx")))


def loaded(name):
    return io.load(Path(name)).proto


def saved(name, proto):
    io.save(proto, Path(name))
    return name


def found(*arguments):
    ended = CliRunner().invoke(app, ["verify", *arguments, "--data", "d.npz", "--json"])
    assert ended.exit_code in (0, 1), ended.output
    return json.loads(ended.stdout)


# --- surgery


@pytest.mark.parametrize("reference", ["m.onnx", "c.onnx"])
def test_the_surgery_is_said_not_to_show_in_int8_and_does_not_fail(reference):
    code, text = verify(reference, "q.onnx")
    assert code == 0
    assert "surgery: not checked: weights are rounded to int8 and nodes folded or added" in text
    assert "verify the float32 model that it was made of" in text
    document = found(reference, "q.onnx")
    assert (document["surgery"]["checked"], document["surgery"]["ok"]) == (False, None)
    assert document["precision"] == "int8"


def test_an_int8_model_of_another_source_fails():
    model(Path("n.onnx"), NODES, TENSORS | {"bias": np.ones(6)})
    code, text = verify("n.onnx", "q.onnx")
    assert code == 1
    assert "FAILED surgery: by its metadata the candidate was made of another model" in text


def test_a_chain_that_is_not_in_the_int8_model_fails():
    proto = int8(loaded("m.onnx"))
    proto.metadata_props.extend(loaded("c.onnx").metadata_props)
    code, text = verify("m.onnx", saved("q.onnx", proto))
    assert code == 1
    assert "FAILED surgery: second: by the metadata it was replaced, but its chain is not" in text


def test_two_int8_models_are_compared_as_they_are():
    saved("p.onnx", int8(loaded("m.onnx")))
    for reference in ("p.onnx", "q.onnx"):
        document = found(reference, "q.onnx")
        assert (document["failures"], document["steps"]) == ([], None)


def test_of_float16_outputs_are_compared_and_the_surgery_is_not():
    saved("h.onnx", halved(loaded("c.onnx")))
    document = found("c.onnx", "h.onnx", "--precision", "float16")
    assert document["surgery"]["skipped"].startswith("not checked: weights are rounded to float16")
    assert (document["precision"], document["steps"], document["ok"]) == ("float16", None, True)
    assert 0 < document["outputs"][0]["relative_l2"] < 5e-3


# --- two steps


def test_each_step_is_what_comparing_its_models_gives():
    saved("between.onnx", dequantised(loaded("q.onnx")))
    (whole,) = found("c.onnx", "q.onnx")["outputs"]
    steps = found("c.onnx", "q.onnx")["steps"]
    pairs = {"weights": ("c.onnx", "between.onnx"), "rounding": ("between.onnx", "q.onnx")}
    for name, pair in pairs.items():
        proto = [loaded(p) for p in pair]
        expected = relative(*(outputs(p, {"x": X}) for p in proto))
        assert steps[name][0]["relative_l2"] == pytest.approx(expected, rel=1e-4)
        assert steps[name][0]["output"] == "y"
        assert steps[name][0]["worst"]["sample"] in range(20)
    parts = [steps[name][0]["relative_l2"] for name in pairs]
    assert 0 < max(parts) < whole["relative_l2"] * 2 < 2.1 * sum(parts)


def test_the_text_tells_both_within_eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    ended = CliRunner().invoke(app, ["verify", *MODELS, "--data", "d.npz"])
    lines = ended.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    starts = [line.split()[:3] for line in lines]
    assert ["weights", "relative", "L2"] in starts
    assert ["rounding", "relative", "L2"] in starts
    assert sum("worst at sample" in line and "→" in line for line in lines) == 2


def dearer(kind, factor):
    """The int8 model after the scales of all weights, or of all activations, grew."""

    def change(proto):
        stored = {t.name: t for t in proto.graph.initializer}
        names = [n.input for n in proto.graph.node if n.op_type == "DequantizeLinear"]
        are_weights = kind == "weights"
        for name in {n[1] for n in names if (n[0] in stored) == are_weights}:
            change_values(proto, name, lambda values: values * np.float32(factor))

    return edited(Path("q.onnx"), change)


def test_spoiled_weights_show_in_the_first_step_and_coarse_ranges_in_the_second():
    before = found("c.onnx", "q.onnx")["steps"]
    dearer("activations", 8)
    coarse = found("c.onnx", "q.onnx")["steps"]
    assert coarse["rounding"][0]["relative_l2"] > 3 * before["rounding"][0]["relative_l2"]
    assert coarse["weights"][0]["relative_l2"] < 1.5 * before["weights"][0]["relative_l2"]
    saved("q.onnx", int8(loaded("c.onnx")))
    dearer("weights", 0.5)
    spoiled = found("c.onnx", "q.onnx")["steps"]
    assert spoiled["weights"][0]["relative_l2"] > 10 * before["weights"][0]["relative_l2"]


def test_limits_hold_for_the_whole_alone():
    steps = found("c.onnx", "q.onnx")["steps"]
    document = found("c.onnx", "q.onnx", "--atol", "0", "--check-error-stat", "mean")
    (failure,) = document["failures"]
    assert failure.startswith("y: mean error")
    assert [o["failure"] for name in steps for o in document["steps"][name]] == [None, None]


def test_what_is_quantized_otherwise_has_no_steps():
    nodes = """q, s, z = DynamicQuantizeLinear (x) a = ConvInteger <pads = [1, 1, 1, 1]> (q, v, z)
        b = Cast <to = 1> (a) y = Mul (b, s)"""
    model(Path("q.onnx"), nodes, {"v": (4 * weight(4, 4, 3, 3)).astype(np.int8)})
    document = found("m.onnx", "q.onnx")
    assert (document["precision"], document["steps"]) == ("int8", None)


# --- what the candidate is said to be


def test_a_candidate_of_the_stated_precision_passes():
    assert found(*MODELS, "--precision", "int8")["ok"]
    assert found("m.onnx", "c.onnx", "--precision", "float32")["ok"]


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ("int8", "c.onnx is a float32 model; give the int8 model"),
        ("float16", "c.onnx is a float32 model; give the float16 model"),
        ("int4", "unknown; choose one of float32, float16, int8"),
    ],
)
def test_a_candidate_of_another_is_refused(stated, words):
    ended = CliRunner().invoke(app, ["verify", "m.onnx", "c.onnx", "--precision", stated])
    assert (ended.exit_code, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert f"--precision {stated}: " in line
    assert words in line
