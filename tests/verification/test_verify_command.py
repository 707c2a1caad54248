"""The `verify` command: what it compares, what it is told to bound, and what it says."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner
from written import edited, model, verify, weight, write

from onnxcp.cli import app
from onnxcp.errors import UsageError
from onnxcp.options.tolerance import ToleranceOptions
from onnxcp.verification.difference import Tolerance
from onnxcp.verification.tolerances import parse

WHOLE = "float[N,6] x) => (float[N,6] y"
TWO = "float[N,6] x) => (float[N,6] y, float[N,6] z"
X = np.abs(np.random.default_rng(0).standard_normal((60, 6))).astype(np.float32) + 1


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("d.npz", x=X)


def pair(reference, candidate, interface=WHOLE, other=None, tensors=None):
    """m.onnx and c.onnx of these nodes."""
    model(Path("m.onnx"), reference, tensors or {}, interface)
    model(Path("c.onnx"), candidate, tensors or {}, other or interface)
    return "m.onnx", "c.onnx"


def strict(*arguments):
    """The JSON of a run, which may hold nothing that JSON does not know."""
    ended = CliRunner().invoke(app, ["verify", *map(str, arguments), "--json"])
    assert ended.exit_code in (0, 1), ended.output

    def refuse(word):
        raise AssertionError(word)

    document = json.loads(ended.stdout, parse_constant=refuse)
    assert document["ok"] is (ended.exit_code == 0)
    return document


def test_a_failure_of_a_metric_that_is_better_lower_speaks_of_its_rise():
    half = "half = Constant <value_float = 0.5> () y = Add (x, half)"
    asked = ("--data", "d.npz", "--metric", "mae", "--max-drop", 0.1)
    code, text = verify(*pair("y = Identity (x)", half), *asked)
    assert code == 1
    assert "FAILED mae rise 0.5000 exceeds 0.1" in text
    assert "drop" not in text


# --- what fails without being asked to


@pytest.mark.parametrize("number", [0, 35, 59])
def test_a_nan_on_one_sample_of_the_data_is_found_and_located(number):
    """The 36th is among those that would calibrate."""
    x = X.copy()
    x[number, 2] = -1
    np.savez("d.npz", x=x)
    code, text = verify(*pair("a = Abs (x) y = Sqrt (a)", "y = Sqrt (x)"), "--data", "d.npz")
    assert code == 1
    assert "y: 1 of 360 values of the candidate are NaN or infinite" in text
    assert f"the first at sample {number}, [2]: 1 in the reference, nan now" in text


def test_a_nan_of_the_reference_alone_fails_too():
    np.savez("d.npz", x=-X)
    code, text = verify(*pair("y = Sqrt (x)", "a = Abs (x) y = Sqrt (a)"), "--data", "d.npz")
    assert code == 1
    assert "360 of 360 values of the reference" in text


def test_outputs_in_another_order_fail_and_are_compared_by_name():
    swapped = "float[N,6] x) => (float[N,6] z, float[N,6] y"
    nodes = "y = Relu (x) z = Neg (x)"
    code, text = verify(*pair(nodes, nodes, TWO, swapped), "--rtol", 0)
    assert code == 1
    assert "FAILED outputs come in another order: z, y instead of y, z" in text
    assert text.count("FAILED") == 1


@pytest.mark.parametrize(
    ("nodes", "output", "words"),
    [
        ("y = Cast <to=10> (x)", "float16[N,6] y", "gives float32, the candidate float16"),
        ("y = Flatten <axis=2> (x)", "float[a,b] y", "shapes differ: "),
        ("a = Constant <value_ints=[2]> () y = Unsqueeze (x, a)", "float[N,6,b] y", "2 dimensions"),
    ],
)
def test_outputs_of_another_kind_fail_with_words(nodes, output, words):
    other = f"float[N,6] x) => ({output}"
    for more in ([], ["--data", "d.npz", "--max-drop", "0.1"]):
        code, text = verify(*pair("y = Relu (x)", nodes, WHOLE, other), *more)
        assert (code, words in text) == (1, True), text


# --- inputs


def refused(*arguments):
    ended = CliRunner().invoke(app, ["verify", *map(str, arguments)])
    assert (ended.exit_code, ended.stdout) == (2, ""), ended.output
    (line,) = ended.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    "other",
    [
        "float16[N,6] x) => (float16[N,6] y",
        "float[N,7] x) => (float[N,7] y",
        "float[N,6,1] x) => (float[a,b,c] y",
    ],
)
def test_models_that_take_other_inputs_are_not_compared(other):
    line = refused(*pair("y = Relu (x)", "y = Relu (x)", WHOLE, other))
    assert line.startswith("error: input 'x': m.onnx takes float32 x: Nx6, c.onnx float")
    assert "same inputs and outputs" in line


def test_a_size_that_nothing_fixes_is_named():
    free = "float[N,width] x) => (float[N,width] y"
    line = refused(*pair("y = Relu (x)", "y = Relu (x)", free))
    assert "dimension 1 ('width') is dynamic" in line


def test_what_one_model_fixes_goes_for_both():
    free = "float[N,width] x) => (float[N,width] y"
    fixed = "float[4,6] x) => (float[4,6] y"
    for old, new in ((free, fixed), (fixed, free)):
        models = pair("y = Relu (x)", "y = Relu (x)", old, new)
        assert verify(*models, "--rtol", 0)[0] == 0
        assert strict(*models, "--data", "d.npz")["samples"] == 60


def test_data_that_fit_one_model_only_name_the_other():
    free, fixed = (f"float[N,{n}] x) => (float[N,{n}] y" for n in ("width", 7))
    for old, new, name in ((free, fixed, "c.onnx"), (fixed, free, "m.onnx")):
        models = pair("y = Relu (x)", "y = Relu (x)", old, new)
        assert f"error: {name}, only this of the two: " in refused(*models, "--data", "d.npz")


def test_the_reference_may_run_elsewhere():
    models = pair("y = Relu (x)", "y = Relu (x)")
    assert verify(*models, "--reference-provider", "cpu")[0] == 0
    ended = CliRunner().invoke(app, ["verify", *models, "--reference-provider", "cuda"])
    assert (ended.exit_code, "provider cuda" in ended.stderr) == (3, True)


# --- what is judged

HALF = "s = Constant <value_float = 1.5> () "
UNJUDGED = "reported, not judged: give --rtol/--atol or --max-drop"


def test_without_bounds_differences_are_reported_and_not_judged():
    code, text = verify(*pair("y = Identity (x)", f"{HALF} y = Mul (x, s)"))
    assert (code, UNJUDGED in text, text.endswith("passed")) == (0, True, True)
    assert "relative L2 5.00e-01 SNR 6.0 dB cosine 1.000000" in text


@pytest.mark.parametrize("bound", [("--rtol", "0.6"), ("--atol", "99")])
def test_bounds_that_hold_are_not_said_to_be_missing(bound):
    code, text = verify(*pair("y = Identity (x)", f"{HALF} y = Mul (x, s)"), *bound)
    assert (code, UNJUDGED in text) == (0, False)


def test_accuracy_without_a_budget_judges_nothing():
    models = pair("y = Identity (x)", f"{HALF} y = Mul (x, s)")
    code, text = verify(*models, "--data", "d.npz", "--metric", "agreement")
    assert (code, UNJUDGED in text) == (0, True)
    code, text = verify(*models, "--data", "d.npz", "--max-drop", "0")
    assert (code, UNJUDGED in text) == (0, False)


BENT = f"{HALF} y = Mul (x, s) z = Identity (x)"


@pytest.mark.parametrize(
    ("bounds", "failing"),
    [
        (["--rtol", "0"], "y"),
        (["--rtol", "0", "--rtol", "y:0.6"], ""),
        (["--rtol", "z:0"], ""),
        (["--rtol", "y:0"], "y"),
        (["--atol", "0", "--rtol", "y:0.6", "--check-error-stat", "y:mean"], ""),
        (["--atol", "0", "--check-error-stat", "median"], "y"),
        (["--rtol", "y:0.1", "--rtol", "y:0.6"], ""),
    ],
)
def test_an_output_without_its_own_tolerance_takes_the_general_one(bounds, failing):
    code, text = verify(*pair("y = Identity (x) z = Identity (x)", BENT, TWO), *bounds)
    assert code == bool(failing)
    assert [w for w in "yz" if f"FAILED {w}:" in text] == list(failing)


def test_a_name_may_hold_colons():
    made = parse(ToleranceOptions(("a:0:0.5", "0.1"), (), ("a:0:max",))).of(["a:0", "b"])
    assert made == {"a:0": Tolerance(0.5, 0.0, "max"), "b": Tolerance(0.1, 0.0)}


def test_a_statistic_for_an_output_without_tolerance_bounds_nothing():
    with pytest.raises(UsageError, match="y:max: bounds nothing"):
        parse(ToleranceOptions((), ("z:1",), ("y:max",))).of(["y", "z"])


def test_top_k_counts_the_channels_asked_for():
    models = pair("y = Identity (x)", "y = Neg (x)")
    assert "top-1 0.0000 top-5 0.0000" in verify(*models)[1]
    found = strict(*models, "--top-k", 6)
    assert (found["k"], found["outputs"][0]["top_k"], found["outputs"][0]["top_1"]) == (6, None, 0)


# --- how it is said


def test_json_knows_neither_nan_nor_infinity():
    found = strict(*pair("y = Relu (x)", "y = Relu (x)"))
    assert found["outputs"][0]["snr_db"] is None
    assert found["surgery"]["checked"] is False
    np.savez("d.npz", x=-X)
    models = pair("a = Abs (x) y = Sqrt (a)", "y = Sqrt (x)")
    assert strict(*models, "--data", "d.npz")["failures"]
    other = "float[N,6] x) => (float16[N,6] y"
    models = pair("y = Relu (x)", "y = Cast <to=10> (x)", WHOLE, other)
    assert strict(*models)["outputs"][0]["relative_l2"] is None


def test_many_failures_are_cut_short_in_the_text_alone():
    outputs = ", ".join(f"float[N,6] y{n}" for n in range(30))
    nodes = " ".join(f"y{n} = {{}} (x)" for n in range(30))
    before, after = nodes.replace("{}", "Relu"), nodes.replace("{}", "Neg")
    models = pair(before, after, f"float[N,6] x) => ({outputs}")
    assert "and 10 more; --json lists all" in verify(*models, "--rtol", 0)[1]
    assert len(strict(*models, "--rtol", 0)["failures"]) == 30


LONG = "encoder/" + "block_with_a_name/" * 8 + "Conv_output_0"


def test_eighty_columns_are_enough(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    tensors = {"w": weight(6, 4, 3, 3)}
    reference = model(Path("m.onnx"), "[a] y = Conv (x, w)", tensors)

    def rename(proto):
        proto.graph.node[0].name = LONG
        proto.graph.node[0].output[0] = proto.graph.output[0].name = LONG

    edited(reference, rename)
    write(reference, Path("c.onnx"), {LONG: "cp4"})
    for more in ([], ["--rtol", "0"]):
        ended = CliRunner().invoke(app, ["verify", "m.onnx", "c.onnx", *more])
        lines = ended.stdout.splitlines()
        assert max(len(line) for line in lines if LONG not in line) <= 80
        assert any("encoder/block_with" in line and "…" in line for line in lines[:8])


def test_a_candidate_that_can_not_run_still_has_its_surgery_told():
    tensors = {"w": weight(4, 4, 3, 3)}
    nodes = "[a] h = Conv <pads=[1,1,1,1]> (x, w) y = Add (h, x)"
    reference = model(Path("m.onnx"), nodes, tensors)
    candidate = write(reference, Path("c.onnx"), {"a": "cp4"})

    def stride(proto):
        next(a for a in proto.graph.node[1].attribute if a.name == "strides").ints[:] = [4, 1]

    edited(candidate, stride)
    assert onnx.load(candidate).graph.node[1].name == "a/cp/vertical"
    code, text = verify(reference, candidate)
    assert code == 1
    assert "FAILED surgery: a: its strides are 4×1, not 1×1" in text
    assert "approximation: unknown, because the candidate does not run" in text
    assert strict(reference, candidate)["outputs"] == []
