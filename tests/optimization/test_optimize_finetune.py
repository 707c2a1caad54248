"""`optimize --finetune`: plans trained, proven, and told from what there would be without."""

import json
import pathlib

import jsonschema
import onnx
import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

from onnxcp.cli import app
from onnxcp.report.json import schema

pytestmark = pytest.mark.usefixtures("quiet")
ROOT = pathlib.Path(__file__).parents[2]
MODEL, DATA = ROOT / "models/digits.onnx", ROOT / "models/digits.npz"
LAYERS = ("--form", "cp3", "--include", "block/*")  # for searches: fits of two layers of six
TRAIN = ("--train", f"{DATA}[:400]", "--data", f"{DATA}[400:]")


def onnxcp(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "recipe.json"
    path.write_text('{"batch": 32, "epochs": 9, "warmup": 0.1, "augment": []}')
    return path


def optimize(output, recipe, *more):
    options = ("--finetune", "--recipe", recipe, "--threads", 1, "--iterations", 20)
    return onnxcp("optimize", MODEL, "-o", output, *options, *more)


@pytest.fixture(scope="module")
def forced(tmp_path_factory, recipe):
    path = tmp_path_factory.mktemp("forced") / "out.onnx"
    report = path.with_suffix(".json")
    options = ("--rank", "*=8", "--epochs", 3, "--report", report)
    ended = optimize(path, recipe, *TRAIN, *options)
    assert ended.exit_code == 0, ended.output
    return path, json.loads(report.read_text()), ended.stdout


def test_a_forced_plan_is_trained(forced):
    _, report, text = forced
    jsonschema.validate(report, schema())
    found = report["finetune"]
    assert report["accuracy"]["drop"] < found["before"]["drop"]
    assert len(found["epochs"]) == 1 + 3
    assert found["recipe"]["warmup"] == 0.1
    assert 0 < found["recipe"]["learning_rate"] <= 1e-3
    assert found["samples"] == {"train": 360, "held_out": 40}
    assert f"3 epochs on 360 samples, weights of epoch {found['best_epoch']}; before" in text


def test_a_plan_of_int8_is_trained_in_float_and_then_as_it_rounds(recipe, tmp_path):
    out, report = tmp_path / "out.onnx", tmp_path / "run.json"
    options = ("--precision", "int8", "--rank", "wide/*=8", "--epochs", 3, "--report", report)
    ended = optimize(out, recipe, *TRAIN, *options)
    assert ended.exit_code == 0, ended.output
    document = json.loads(report.read_text())
    jsonschema.validate(document, schema())
    found = document["finetune"]
    assert (len(found["epochs"]), len(found["rounded"])) == (1 + 3, 1 + 1)
    assert document["accuracy"]["drop"] < found["before"]["drop"]
    assert {n.op_type for n in onnx.load(out).graph.node} >= {"QuantizeLinear", "Conv"}
    assert "1 epoch more, with int8 rounding" in ended.stdout
    again = optimize(
        tmp_path / "b.onnx",
        recipe,
        *TRAIN,
        "--plan",
        out.with_suffix(".plan.json"),
        "--epochs",
        3,
    )
    assert again.exit_code == 0, again.output
    assert (tmp_path / "b.onnx").read_bytes() == out.read_bytes()


def test_errors_are_those_of_the_trained_kernels(forced):
    path, report, _ = forced
    ended = onnxcp("verify", MODEL, path, "--json")
    assert ended.exit_code == 0, ended.output
    sites = json.loads(ended.stdout)["surgery"]["sites"]
    errors = {s["name"]: s["error"] for s in report["sites"] if s["decision"] != "kept"}
    assert {s["name"]: s["kernel_error"] for s in sites} == pytest.approx(errors)


def test_the_same_data_and_seed_make_the_same_bytes(forced, recipe, tmp_path):
    again = tmp_path / "out.onnx"
    plan = forced[0].with_suffix(".plan.json")
    ended = optimize(again, recipe, *TRAIN, "--plan", plan, "--epochs", 3)
    assert ended.exit_code == 0, ended.output
    assert again.read_bytes() == forced[0].read_bytes()


def test_a_killed_run_goes_on_with_the_training(forced, recipe, tmp_path):
    plan, work = forced[0].with_suffix(".plan.json"), tmp_path / "work"
    options = (*TRAIN, "--plan", plan, "--epochs", 3, "--work-dir", work)
    assert optimize(tmp_path / "a.onnx", recipe, *options).exit_code == 0
    (checkpoint,) = (work / "trained").glob("*/training.pt")
    before = checkpoint.stat().st_mtime_ns
    ended = optimize(tmp_path / "b.onnx", recipe, *options, "--resume")
    assert ended.exit_code == 0, ended.output
    assert checkpoint.stat().st_mtime_ns == before, "a finished training is not repeated"
    assert (tmp_path / "b.onnx").read_bytes() == forced[0].read_bytes()


@pytest.mark.slow
def test_a_search_tells_what_training_was_worth(recipe, tmp_path):
    report = tmp_path / "run.json"
    options = ("--max-error", 0.05, "--report", report, *LAYERS)
    ended = optimize(tmp_path / "out.onnx", recipe, *TRAIN, *options)
    assert ended.exit_code == 0, ended.output
    document = json.loads(report.read_text())
    jsonschema.validate(document, schema())
    found = document["finetune"]
    assert {trial["epochs"] for trial in found["trials"]} <= {2, 9}
    assert document["accuracy"]["drop"] <= 0.05
    assert document["latency"]["speedup"] >= found["without_speedup"]
    assert "trainings" in ended.stdout


@pytest.mark.slow
def test_a_search_in_int8_tells_its_trainings_whichever_model_wins(recipe, tmp_path):
    report = tmp_path / "run.json"
    options = ("--max-error", 0.05, "--precision", "int8", "--report", report, *LAYERS)
    ended = optimize(tmp_path / "out.onnx", recipe, *TRAIN, *options)
    assert ended.exit_code == 0, ended.output
    document = json.loads(report.read_text())
    jsonschema.validate(document, schema())
    assert len(document["quantization"]["rivals"]) == 2
    assert document["finetune"]["trials"]
    assert "trainings" in ended.stdout


def test_a_speed_up_asked_for_is_met_by_a_trained_plan(recipe, tmp_path):
    report = tmp_path / "run.json"
    options = ("--target-speedup", 1.2, "--epochs", 2, "--report", report, *LAYERS)
    ended = optimize(tmp_path / "out.onnx", recipe, *TRAIN, *options)
    assert ended.exit_code == 0, ended.output
    document = json.loads(report.read_text())
    assert document["latency"]["speedup"] >= 1.2
    assert document["latency"]["turns"] == 2 * 20, "before the training, and after it"
    assert document["finetune"]["before"] is not None


REFUSED = {
    "samples that judge": (["--data", DATA, "--train", f"{DATA}[:9]"], 2, "share samples"),
    "no samples": ([], 2, "samples"),
    "too few": (["--data", DATA, "--train", f"{ROOT}/models/digits_calibration.npz[:20]"], 2, "20"),
    "another strategy": ([*TRAIN, "--strategy", "bisect"], 2, "those of knapsack"),
    "a front": ([*TRAIN, "--pareto", "front"], 2, "--pareto and --finetune"),
    "an unknown device": ([*TRAIN, "--recipe", "device.json"], 2, "cpu, cuda"),
    "a recipe with what none has": ([*TRAIN, "--recipe", "other.json"], 2, "give an object with"),
    "a recipe with a word for a number": (
        [*TRAIN, "--recipe", "word.json"],
        2,
        "epochs cannot be",
    ),
    "a recipe that is none": ([*TRAIN, "--recipe", "none.json"], 2, "none.json"),
}


@pytest.mark.parametrize("row", REFUSED.values(), ids=REFUSED)
def test_it_refuses(row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, code, words = row
    written = {"device": '{"device": "tpu"}', "other": '{"rate": 1}', "word": '{"epochs": "many"}'}
    for name, text in written.items():
        pathlib.Path(f"{name}.json").write_text(text)
    ended = onnxcp("optimize", MODEL, "-o", "o.onnx", "--finetune", *arguments)
    assert ended.exit_code == code, ended.output
    (line,) = ended.stderr.splitlines()
    assert words in line
    assert not pathlib.Path("o.onnx").exists()


@pytest.mark.parametrize("option", [("--epochs", 3), ("--augment", "flip"), ("--train", DATA)])
def test_options_of_a_training_that_is_not_asked_for_are_refused(option, tmp_path):
    ended = onnxcp("optimize", MODEL, "-o", tmp_path / "o.onnx", *option)
    assert ended.exit_code == 2
    assert "goes with --finetune" in ended.stderr
