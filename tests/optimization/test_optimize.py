"""The main job on the bundled model, as a user runs it."""

import json
import pathlib
import shutil

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
from digits import DATA, MODEL, onnxcp

from onnxcp.report.json import schema

pytestmark = pytest.mark.usefixtures("quiet")
QUICK = ["--threads", "1", "--jobs", "1", "--iterations", "8"]
BLOCK = ["--include", "block/*"]  # two layers of six: the fits of all take half a minute
IMPOSSIBLE = ["--max-error", "1e-9", "--include", "block/conv1", "--form", "cp3"]


@pytest.fixture
def model(tmp_path):
    """The bundled model in a folder of its own."""
    return pathlib.Path(shutil.copy(MODEL, tmp_path))


def accuracy(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    data = np.load(DATA)
    others = [n for n in range(len(data["label"])) if n % 5]  # every fifth calibrated
    judging = [n for place, n in enumerate(others) if place % 3]  # every third of these searched
    images, labels = (data[name][judging] for name in ("input", "label"))
    (scores,) = session.run(None, {"input": images.astype(np.float32)})
    return float((scores.argmax(1) == labels).mean())


def test_a_model_becomes_faster_within_its_budget(model):
    run = model.with_name("run.json")
    ended = onnxcp(
        "optimize", model, "--data", DATA, "--max-drop", 0.01, "--report", run, *BLOCK, *QUICK
    )
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert "faster" in ended.stdout
    report = json.loads(run.read_text())
    jsonschema.validate(report, schema())
    assert report["latency"]["speedup_ci"][0] > 1
    assert report["accuracy"]["drop"] <= 0.01
    written = model.with_suffix(".cp.onnx")
    onnx.checker.check_model(str(written), full_check=True)
    assert accuracy(written) == pytest.approx(report["accuracy"]["after"], abs=1e-9)
    assert accuracy(model) == pytest.approx(report["accuracy"]["before"], abs=1e-9)
    for site in report["sites"]:
        if site["decision"] != "kept":
            assert site["ms_after"] < site["ms_before"]
            assert site["sensitivity_after"] < site["sensitivity_before"]
            assert site["rank"] % report["environment"]["channel_block"] == 0


def test_the_bare_command_says_first_that_accuracy_was_not_measured(model):
    ended = onnxcp("optimize", model, "--form", "cp3", "--max-error", 0.5, *BLOCK, *QUICK)
    assert ended.exit_code == 0
    assert ended.stdout.startswith("! ACCURACY WAS NOT MEASURED")
    assert "pass --data" in " ".join(ended.stdout.split())
    assert model.with_suffix(".cp.onnx").is_file()


def test_a_budget_nothing_meets_ends_with_one_and_writes_nothing(model):
    before = sorted(model.parent.iterdir())
    ended = onnxcp("optimize", model, *IMPOSSIBLE, *QUICK)
    assert ended.exit_code == 1
    assert "nothing written" in ended.stdout
    assert sorted(model.parent.iterdir()) == before


def test_a_report_is_written_even_where_the_model_is_not(model):
    run = model.with_name("run.json")
    ended = onnxcp("optimize", model, *IMPOSSIBLE, "--report", run, *QUICK)
    report = json.loads(run.read_text())
    jsonschema.validate(report, schema())
    assert report["exit_code"] == ended.exit_code == 1
    assert report["model"]["output"] is None


def test_allow_unchanged_writes_the_input_through(model):
    ended = onnxcp("optimize", model, *IMPOSSIBLE, "--allow-unchanged", *QUICK)
    assert ended.exit_code == 0
    assert model.with_suffix(".cp.onnx").read_bytes() == model.read_bytes()


def test_an_unaccepted_plan_is_not_what_allow_unchanged_writes(model):
    run = model.with_name("run.json")
    budget = ["--data", DATA, "--max-drop", 0.0001, "--allow-unchanged", "--report", run]
    ended = onnxcp("optimize", model, "--form", "cp3", "--rank", "block/*=8", *budget, *QUICK)
    assert ended.exit_code == 0
    assert "left unchanged, over budget" in ended.stdout
    assert model.with_suffix(".cp.onnx").read_bytes() == model.read_bytes()
    report = json.loads(run.read_text())
    assert report["plan"] == {}
    assert {site["decision"] for site in report["sites"]} == {"kept"}
    assert report["accuracy"]["drop"] > 0.0001


FORCED = ["--form", "cp3", "--rank", "block/*=0.5c", *QUICK]


def test_forced_ranks_replace_exactly_what_they_name(model):
    run = model.with_name("run.json")
    ended = onnxcp("optimize", model, *FORCED, "--report", run)
    assert ended.exit_code == 0
    plan = json.loads(run.read_text())["plan"]
    assert plan == {f"block/conv{i}": {"form": "cp3", "rank": 32} for i in (1, 2)}


def test_a_forced_plan_over_its_budget_is_not_written(model):
    budget = ["--data", DATA, "--max-drop", 0.0001]
    ended = onnxcp("optimize", model, "--form", "cp3", "--rank", "block/*=8", *budget, *QUICK)
    assert ended.exit_code == 1
    assert "over budget" in ended.stdout
    assert not model.with_suffix(".cp.onnx").exists()


def test_a_plan_replays_to_the_same_bytes(model):
    onnxcp("optimize", model, *FORCED, "--seed", 5)
    plan, again = model.with_suffix(".cp.plan.json"), model.with_name("again.onnx")
    ended = onnxcp("optimize", model, "-o", again, "--plan", plan, *QUICK)
    assert ended.exit_code == 0
    assert again.read_bytes() == model.with_suffix(".cp.onnx").read_bytes()
    assert again.with_suffix(".plan.json").read_bytes() == plan.read_bytes()


def test_processes_fit_what_one_process_fits(model):
    onnxcp("optimize", model, *FORCED)
    other = model.with_name("other.onnx")
    onnxcp("optimize", model, "-o", other, *FORCED, "--jobs", 2)
    assert other.read_bytes() == model.with_suffix(".cp.onnx").read_bytes()


def test_a_second_run_leaves_the_chains_of_the_first_alone(model):
    onnxcp("optimize", model, *FORCED)
    chained = model.with_suffix(".cp.onnx")
    listed = json.loads(onnxcp("inspect", chained, "--json").stdout)["layers"]
    reasons = {row["reason"] for row in listed if "/cp/" in row["name"]}
    assert reasons == {"part of a chain that an earlier run made"}


def test_verify_and_benchmark_take_what_optimize_wrote(model):
    onnxcp("optimize", model, *FORCED)
    chained = model.with_suffix(".cp.onnx")
    checked = onnxcp("verify", model, chained, "--data", DATA, "--max-drop", 0.05, "--json")
    assert checked.exit_code == 0
    assert json.loads(checked.stdout)["ok"]
    strict = onnxcp("verify", model, chained, "--rtol", 1e-6, "--atol", 1e-6)
    assert strict.exit_code == 1
    assert "FAILED logits" in strict.stdout
    timed = onnxcp("benchmark", model, chained, "--threads", 1, "--duration", 0.2, "--json")
    assert json.loads(timed.stdout)["runs"][0]["speedup"]["ratio"] > 1


def test_verify_passes_a_model_against_itself(model):
    ended = onnxcp("verify", model, model, "--rtol", 0, "--atol", 0)
    assert (ended.exit_code, ended.stdout.splitlines()[-1]) == (0, "passed")


def test_inspect_accounts_for_every_layer(model):
    listed = json.loads(onnxcp("inspect", model, "--json").stdout)
    assert len(listed["layers"]) == 7
    assert all(row["eligible"] for row in listed["layers"])
    assert sum(row["macs"] for row in listed["layers"]) == listed["macs"]
