"""`optimize --precision int8`: chains in int8, proven against int8 alone and float chains."""

import json
import pathlib
from collections import Counter

import jsonschema
import onnx
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic
from typer.testing import CliRunner

from onnxcp.cli import app
from onnxcp.optimization import pipeline
from onnxcp.plan import from_json
from onnxcp.report.json import schema

pytestmark = pytest.mark.usefixtures("quiet")
ROOT = pathlib.Path(__file__).parents[2]
MODEL, DATA = ROOT / "models/digits.onnx", ROOT / "models/digits.npz"
QUICK = ("--threads", 1, "--iterations", 8, "--jobs", 1)
FEW = ("--data", f"{DATA}[:200]", "--calibration", f"{DATA}[200:300]")


def onnxcp(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def optimize(output, *more, model=MODEL):
    return onnxcp("optimize", model, "-o", output, *QUICK, *more)


def nodes(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.fixture(scope="module")
def forced(tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "out.onnx"
    report = path.with_suffix(".json")
    ranks = ("--rank", "wide/*=32", "--rank", "block/*=32")
    ended = optimize(path, *FEW, *ranks, "--precision", "int8", "--report", report)
    assert ended.exit_code == 0, ended.output
    return path, json.loads(report.read_text()), ended.stdout


def test_chains_given_by_rank_are_written_in_int8(forced):
    path, report, _ = forced
    jsonschema.validate(report, schema())
    chained = [n for n in onnx.load(path).graph.node if "/cp/" in n.name and n.op_type == "Conv"]
    assert len(chained) >= 3 * 3
    made_by = {o: n.op_type for n in onnx.load(path).graph.node for o in n.output}
    assert {made_by[name] for node in chained for name in node.input} == {"DequantizeLinear"}
    assert report["precision"] == "int8"


def test_both_steps_are_told_apart(forced):
    _, report, text = forced
    chained, both = report["quantization"]["chained"], report["accuracy"]
    assert chained["before"] == both["before"]
    assert report["verification"]["ok"], "of the chains, before they are quantized"
    assert report["quantization"]["scheme"]["weights"] == "int8"
    assert report["quantization"]["samples"] == 100
    assert f"chains alone  top1 {chained['before']:.4f} → {chained['after']:.4f}" in text


def test_a_plan_remembers_that_it_is_of_int8(forced, tmp_path):
    path = forced[0]
    plan = path.with_suffix(".plan.json")
    assert from_json(plan)[1].precision == "int8"
    ended = optimize(tmp_path / "again.onnx", *FEW, "--plan", plan)
    assert ended.exit_code == 0, ended.output
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_a_plan_of_int8_can_be_written_in_float(forced, tmp_path):
    plan = forced[0].with_suffix(".plan.json")
    ended = optimize(tmp_path / "float.onnx", *FEW, "--plan", plan, "--precision", "float32")
    assert ended.exit_code == 0, ended.output
    assert "QuantizeLinear" not in nodes(tmp_path / "float.onnx")


def changed(plan, folder, **floats):
    """A plan with something of some chains left in float."""
    document = json.loads(plan.read_text())
    for name, kind in floats.items():
        document["sites"][f"block/{name}"]["floats"] = kind
    path = folder / "changed.json"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture(scope="module")
def mixed(forced, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    plan = changed(forced[0].with_suffix(".plan.json"), folder, conv1="windows", conv2="chain")
    path, report = folder / "out.onnx", folder / "run.json"
    ended = optimize(path, *FEW, "--plan", plan, "--report", report)
    assert ended.exit_code == 0, ended.output
    return path, json.loads(report.read_text()), ended.stdout, plan


def in_float(path):
    """Convolutions of chains that read a weight in float."""
    proto = onnx.load(path)
    stored = {t.name for t in proto.graph.initializer}
    return {n.name for n in proto.graph.node if n.op_type == "Conv" and n.input[1] in stored}


def test_a_plan_leaves_in_float_what_it_says(mixed, forced):
    path, report, text, plan = mixed
    roles = {f"block/conv2/cp/{role}" for role in ("inputs", "window", "outputs")}
    assert in_float(path) == roles | {"block/conv1/cp/window"}
    assert in_float(forced[0]) == set()
    assert from_json(path.with_suffix(".plan.json")) == from_json(plan)
    jsonschema.validate(report, schema())
    floats = {site["name"]: site["floats"] for site in report["sites"]}
    assert (floats["block/conv1"], floats["block/conv2"]) == ("windows", "chain")
    assert {kind for n, kind in floats.items() if not n.startswith("block/")} == {None}
    assert report["plan"]["block/conv1"]["floats"] == "windows"
    assert "windows in float: block/conv1\nchains in float: block/conv2\n" in text


def test_it_is_checked_as_any_int8_model_is(mixed):
    ended = onnxcp("verify", MODEL, mixed[0], "--data", f"{DATA}[:200]", "--max-drop", 0.2)
    assert ended.exit_code == 0, ended.output


def test_in_a_float_model_nothing_of_that_is_left(mixed, tmp_path):
    path, precision = tmp_path / "float.onnx", ("--precision", "float32")
    assert optimize(path, *FEW, "--plan", mixed[3], *precision).exit_code == 0
    plan, _ = from_json(path.with_suffix(".plan.json"))
    assert {choice.floats for choice in plan.choices.values()} == {""}
    assert b"floats" not in path.read_bytes()


def test_what_a_chain_does_not_have_can_not_stay_in_float(forced, tmp_path):
    plan = changed(forced[0].with_suffix(".plan.json"), tmp_path, conv1="core")
    ended = optimize(tmp_path / "out.onnx", *FEW, "--plan", plan)
    assert (ended.exit_code, "block/conv1" in ended.stderr) == (2, True), ended.output
    assert "windows or chain" in ended.stderr


def test_a_search_writes_the_fastest_of_three(tmp_path):
    path, report = tmp_path / "out.onnx", tmp_path / "run.json"
    more = ("--precision", "int8", "--max-drop", 0.05, "--form", "cp3", "--report", report)
    ended = optimize(path, *FEW, *more, "--include", "block/conv1")
    assert ended.exit_code == 0, ended.output
    document = json.loads(report.read_text())
    jsonschema.validate(document, schema())
    rivals = document["quantization"]["rivals"]
    assert len(rivals) == 2
    assert document["latency"]["speedup"] >= max(r["speedup"] for r in rivals if r["within"])
    assert document["accuracy"]["drop"] <= 0.05
    assert ("QuantizeLinear" in nodes(path)) == (document["precision"] == "int8")
    assert all(f"rival         {rival['name']}" in ended.stdout for rival in rivals)


def test_where_no_layer_may_change_int8_alone_is_what_there_is(tmp_path):
    path, report = tmp_path / "out.onnx", tmp_path / "run.json"
    options = ("--exclude", "*", "--precision", "int8", "--max-drop", 0.05, "--report", report)
    ended = optimize(path, *FEW, *options)
    assert ended.exit_code == 0, ended.output
    document = json.loads(report.read_text())
    assert (document["precision"], document["plan"]) == ("int8", {})
    assert nodes(path)["QuantizeLinear"]


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    path, proto = tmp_path_factory.mktemp("old") / "old.onnx", onnx.load(MODEL)
    proto.opset_import[0].version = 11  # its operators have not changed since
    onnx.save(proto, path)
    return path


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    path = tmp_path_factory.mktemp("quantized") / "quantized.onnx"
    quantize_dynamic(MODEL, path, weight_type=QuantType.QUInt8)
    return path


INT8 = ("--precision", "int8")
REFUSED = {
    "no samples": (INT8, 2, "give --calibration"),
    "too few samples": ((*INT8, "--calibration", f"{DATA}[:9]"), 2, "9 calibration samples"),
    "an unknown precision": (("--precision", "int4"), 2, "float32, float16, int8"),
    "another provider": ((*INT8, *FEW, "--provider", "cuda"), 2, "provider cuda"),
    "a front": ((*INT8, *FEW, "--pareto", "front"), 2, "--pareto and --precision int8"),
    "a plan that is none": (("--plan", "nothing.json"), 2, "nothing.json"),
}


@pytest.mark.parametrize("row", REFUSED.values(), ids=REFUSED)
def test_it_refuses(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options, code, words = row
    ended = optimize(tmp_path / "out.onnx", *options)
    assert (ended.exit_code, words in ended.stderr) == (code, True), ended.output
    assert not (tmp_path / "out.onnx").exists()


def test_an_old_opset_is_raised_only_with_consent(old, tmp_path):
    options = (*FEW, *INT8, "--rank", "wide/*=32")
    refused = optimize(tmp_path / "out.onnx", *options, model=old)
    assert (refused.exit_code, "--raise-opset" in refused.stderr) == (2, True), refused.output
    ended = optimize(tmp_path / "out.onnx", *options, "--raise-opset", model=old)
    assert ended.exit_code == 0, ended.output
    assert onnx.load(tmp_path / "out.onnx").opset_import[0].version == 13


def test_what_is_quantized_already_is_left_alone(quantized, tmp_path):
    ended = optimize(tmp_path / "out.onnx", *FEW, *INT8, model=quantized)
    assert (ended.exit_code, "quantized already" in ended.stderr) == (2, True), ended.output


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "latency.json"
    ended = onnxcp("profile", MODEL, "-o", path, "--form", "cp3", *INT8, "--threads", 1)
    assert ended.exit_code == 0, ended.output
    assert ", in int8" in ended.stdout
    return path


def test_a_table_knows_its_precision(table, tmp_path):
    other = optimize(tmp_path / "out.onnx", *FEW, "--latency", table)
    assert (other.exit_code, "times are of int8" in other.stderr) == (2, True), other.output


def test_a_search_leaves_in_float_what_is_measured_faster_so(table, tmp_path, monkeypatch):
    faster, path = tmp_path / "latency.json", tmp_path / "out.onnx"
    document = json.loads(table.read_text())
    for row in document["rows"].values():
        row["tried"] = [windows_at_once(m) for m in row["tried"] if "floats" not in m["choice"]]
    faster.write_text(json.dumps(document))
    monkeypatch.setattr(pipeline, "fastest", lambda job, found, wanted: found[0])
    monkeypatch.setattr(pipeline, "foreign", lambda job: ["so float is not searched"])
    more = ("--max-drop", 0.3, "--form", "cp3", "--latency", faster, "--include", "block/conv1")
    ended = optimize(path, *FEW, *INT8, *more)
    assert ended.exit_code == 0, ended.output
    plan, _ = from_json(path.with_suffix(".plan.json"))
    assert {choice.floats for choice in plan.choices.values()} == {"windows"}
    assert in_float(path) == {f"{name}/cp/window" for name in plan.choices}


def windows_at_once(row):
    """A row of a table as it would be where windows in float took half the time."""
    against = {name: 2 * ratio for name, ratio in row["against"].items()}
    choice = {**row["choice"], "floats": "windows"}
    return {"choice": choice, "seconds": row["seconds"] / 2, "against": against}
