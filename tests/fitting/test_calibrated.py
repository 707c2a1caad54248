"""Runs that fit to what layers really read: options, replays, and what is refused."""

import json
import pathlib

import numpy as np
import onnx
import pytest
from asked import settings
from typer.testing import CliRunner
from written import model, weight

from onnxcp.cli import app
from onnxcp.optimization.calibration import learn_inputs
from onnxcp.optimization.open_run import open_run
from onnxcp.progress import silent

MODELS = pathlib.Path(__file__).parents[2] / "models"
MODEL, DATA = MODELS / "digits.onnx", f"{MODELS}/digits.npz"
SPLIT = ["--calibration", f"{DATA}[:200]", "--data", f"{DATA}[200:]"]
FORCED = ["--form", "cp3", "--rank", "*=16", "--include", "block/*"]
QUICK = ["--threads", 1, "--jobs", 1, "--iterations", 8]


def onnxcp(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def report(folder, *options, name="out"):
    """The report of a run that must end well."""
    files = ["-o", folder / f"{name}.onnx", "--report", folder / f"{name}.json"]
    ended = onnxcp("optimize", MODEL, *files, *FORCED, *QUICK, *options)
    assert ended.exit_code == 0, ended.stderr
    return json.loads((folder / f"{name}.json").read_text())


def made(folder, name):
    return (folder / f"{name}.onnx").read_bytes()


def last(node):
    return node.name.endswith("/cp/outputs")


def test_fits_to_real_inputs_keep_more_accuracy_than_fits_to_weights(tmp_path):
    weights = report(tmp_path, name="weights")
    inputs = report(tmp_path, *SPLIT, name="inputs")
    assert weights["settings"]["calibration_samples"] == 0
    assert inputs["settings"]["calibration_samples"] == 200
    assert inputs["accuracy"]["samples"] == 497
    assert inputs["accuracy"]["drop"] < 0.02


def test_few_samples_calibrate_too(tmp_path):
    few = report(tmp_path, "--data", f"{DATA}[:12]")
    assert few["settings"]["calibration_samples"] == 4
    assert few["accuracy"]["samples"] == 8
    assert few["settings"]["sample_roles"] == {
        "count": 12,
        "calibration_step": 3,
        "search_step": 0,
    }


def test_the_bias_makes_up_for_a_mean_unless_told_not_to(tmp_path):
    report(tmp_path, *SPLIT, name="corrected")
    report(tmp_path, *SPLIT, "--no-bias-correction", name="kept")
    kept, corrected = (
        [len(n.input) for n in onnx.load(tmp_path / f"{name}.onnx").graph.node if last(n)]
        for name in ("kept", "corrected")
    )
    assert (set(kept), set(corrected)) == ({2}, {3})  # the model's own have none


def test_calibration_in_sequence_is_another_model(tmp_path):
    found = report(tmp_path, *SPLIT, "--sequential", name="sequence")
    report(tmp_path, *SPLIT, name="parallel")
    assert found["settings"]["sequential"]
    assert found["verification"]["ok"]
    assert found["accuracy"]["drop"] < 0.02
    assert made(tmp_path, "sequence") != made(tmp_path, "parallel")


@pytest.mark.parametrize("options", [[], ["--sequential"], ["--no-bias-correction"]])
def test_a_plan_replays_its_fits_to_the_same_bytes(tmp_path, options):
    report(tmp_path, *SPLIT, *options, "--no-cache", name="first")
    files = ["-o", tmp_path / "again.onnx", "--plan", tmp_path / "first.plan.json"]
    ended = onnxcp("optimize", MODEL, *files, *SPLIT, *QUICK, "--no-cache")
    assert ended.exit_code == 0, ended.stderr
    assert made(tmp_path, "first") == made(tmp_path, "again")


@pytest.mark.parametrize("jobs", [2])
def test_jobs_do_not_change_a_byte(tmp_path, jobs):
    report(tmp_path, *SPLIT, "--no-cache", name="one")
    report(tmp_path, *SPLIT, "--no-cache", "--jobs", jobs, name="two")
    assert made(tmp_path, "one") == made(tmp_path, "two")


def test_kept_fits_give_the_same_bytes(tmp_path):
    report(tmp_path, *SPLIT, "--cache", tmp_path / "fits", name="first")
    assert list((tmp_path / "fits").glob("??/*.npz"))
    report(tmp_path, *SPLIT, "--cache", tmp_path / "fits", name="second")
    assert made(tmp_path, "first") == made(tmp_path, "second")


def test_a_plan_made_with_other_samples_is_refused(tmp_path):
    report(tmp_path, *SPLIT, name="first")
    files = ["-o", tmp_path / "again.onnx", "--plan", tmp_path / "first.plan.json"]
    ended = onnxcp("optimize", MODEL, *files, "--data", DATA, *QUICK)
    assert ended.exit_code == 2
    assert "other calibration samples" in ended.stderr
    assert not (tmp_path / "again.onnx").exists()


def test_what_is_calibrated_once_stays_known(tmp_path):
    asked = settings(MODELS / "digits.onnx", tmp_path / "out.onnx", data=(str(DATA),))
    with open_run(asked, silent) as job:
        (first, second), known = job.sites[:2], job.fits.knows
        learn_inputs(job, [first.name])
        assert known(first)
        assert not known(second)
        learn_inputs(job, [second.name])
        assert known(first)
        assert known(second)


def test_less_memory_falls_back_to_channels(tmp_path):
    found = report(tmp_path, *SPLIT, "--calibration-memory", 0.001)
    assert found["verification"]["ok"]
    assert found["settings"]["calibration_samples"] == 200


def test_a_memory_limit_that_can_not_be_kept_is_refused(tmp_path):
    options = ["--calibration-memory", 1e-6, "-o", tmp_path / "out.onnx"]
    ended = onnxcp("optimize", MODEL, *FORCED, *SPLIT, *QUICK, *options)
    assert ended.exit_code == 2
    assert "--calibration-memory" in ended.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_inputs_that_are_not_finite_are_refused(tmp_path):
    images = np.load(DATA)["input"].astype(np.float32)[:60]
    images[7, 0, 2, 2] = np.inf
    np.savez(tmp_path / "bad.npz", input=images)
    options = ["--calibration", tmp_path / "bad.npz", "-o", tmp_path / "out.onnx"]
    ended = onnxcp("optimize", MODEL, *FORCED, *QUICK, *options)
    assert ended.exit_code == 2, ended.stderr
    assert "NaN or infinite" in ended.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_constant_inputs_are_fitted_in_the_plain_norm(tmp_path):
    np.savez(tmp_path / "black.npz", input=np.zeros_like(np.load(DATA)["input"][:60]))
    found = report(tmp_path, "--calibration", tmp_path / "black.npz", "--max-error", 0.9)
    assert found["verification"]["ok"]
    assert all(site["error"] < 1 for site in found["sites"] if site["error"] is not None)


def test_rank_curves_fall_and_are_data(tmp_path):
    nodes = "a = Conv <pads=[1,1,1,1]> (x, v) r = Relu (a) y = Conv <pads=[1,1,1,1]> (r, w)"
    tensors = {"v": weight(32, 4, 3, 3), "w": weight(32, 32, 3, 3)}
    small = model(tmp_path / "m.onnx", nodes, tensors, "float[N,4,8,8] x) => (float[N,32,8,8] y")
    seen = np.random.default_rng(0).standard_normal((60, 4, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "seen.npz", x=seen)
    options = ["--ranks", "--form", "cp3", "--json", "--jobs", 1, "--quiet"]
    ended = onnxcp("inspect", small, "--calibration", tmp_path / "seen.npz", *options)
    assert ended.exit_code == 0, ended.stderr
    curves = json.loads(ended.stdout)
    assert {c["form"] for c in curves} == {"cp3"}
    assert len(curves) == 2
    assert max(len(curve["points"]) for curve in curves) >= 4
    for curve in curves:
        errors = [point["error"] for point in curve["points"]]
        assert errors == sorted(errors, reverse=True)
        assert errors[0] > errors[-1] or len(errors) == 1
        assert all(point["sensitivity"] > 0 and point["macs"] > 0 for point in curve["points"])


def test_rank_curves_as_text_fit_a_terminal():
    ended = onnxcp("inspect", MODEL, "--ranks", "--form", "cp4", "--jobs", 1, "--quiet")
    assert ended.exit_code == 0
    assert ended.stdout.startswith("layer")
    assert "16: 0." in ended.stdout


@pytest.mark.parametrize("options", [[], ["--calibration-memory", 0.01]])
def test_a_plan_that_was_searched_replays_to_the_same_bytes(tmp_path, options):
    """Other layers were looked at in the search, and the seed and memory come with the plan."""
    files = ["-o", tmp_path / "first.onnx", "--no-cache"]
    layers = ["--form", "cp3", "--include", "stem/*", "--include", "block/conv1"]
    search = ["--seed", 5, *layers, *options]
    ended = onnxcp("optimize", MODEL, *files, *SPLIT, "--max-drop", 0.03, *search, *QUICK)
    assert ended.exit_code == 0, ended.stdout
    again = ["-o", tmp_path / "again.onnx", "--plan", tmp_path / "first.plan.json", "--no-cache"]
    ended = onnxcp("optimize", MODEL, *again, *SPLIT, *QUICK)
    assert ended.exit_code == 0, ended.stderr
    assert made(tmp_path, "first") == made(tmp_path, "again")


def test_parameters_count_the_biases_that_chains_bring(tmp_path):
    corrected = report(tmp_path, *SPLIT, name="corrected")["model"]
    kept = report(tmp_path, *SPLIT, "--no-bias-correction", name="kept")["model"]
    new = 64 + 64  # outputs of block/conv1 and block/conv2, which had no bias
    assert corrected["parameters_after"] - kept["parameters_after"] == new
