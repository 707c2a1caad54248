"""`optimize` and `verify` judge by the same code on the same samples: they never contradict
each other."""

import json
import pathlib
import shutil

import pytest
from typer.testing import CliRunner

from onnxcp.cli import app
from onnxcp.data.recorded_roles import SAMPLES, roles_of
from onnxcp.graph import io

pytestmark = pytest.mark.usefixtures("quiet")
ROOT = pathlib.Path(__file__).parents[2]
MODEL, DATA = ROOT / "models/digits.onnx", ROOT / "models/digits.npz"
QUICK = ("--threads", "1", "--jobs", "1", "--iterations", "20", "--form", "cp3")
FORCED = ("--rank", "block/conv*=24")
SEARCHED = ("--include", "block/conv1")
FIGURES = ("metric", "before", "after", "drop", "drop_ci", "samples", "budget", "outputs")


def onnxcp(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def both(folder, how, metric, limit):
    """The accuracy that `optimize` reports, and what `verify` says with the same budget."""
    run, output = folder / "run.json", folder / "made.onnx"
    judged = ("--data", f"{DATA}[:300]", *metric, "--max-drop", limit)
    made = onnxcp("optimize", MODEL, "-o", output, *judged, *how, *QUICK, "--report", run)
    assert made.exit_code == 0, made.output
    checked = onnxcp("verify", MODEL, output, *judged, "--threads", 1, "--json")
    return json.loads(run.read_text())["accuracy"], json.loads(checked.stdout), checked.exit_code


def flat(value):
    """What a JSON value holds, in order."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return [leaf for part in parts for leaf in flat(part)]
    return [value]


def refuse_other_figures(said, found, code):
    assert (code, found["ok"]) == (0, True)
    for figure in FIGURES:
        one, two = flat(said[figure]), flat(found["accuracy"][figure])
        assert one == pytest.approx(two, abs=1e-4), figure
    assert said["drop"] <= said["budget"]


@pytest.fixture(scope="module")
def forced(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forced")
    return folder, both(folder, FORCED, (), "0.4")


def test_what_optimize_accepts_verify_passes_with_the_same_figures(forced):
    refuse_other_figures(*forced[1])


@pytest.mark.parametrize("how", [SEARCHED, (*FORCED, "--precision", "int8")])
def test_so_it_does_where_ranks_are_searched_and_in_int8(tmp_path, how):
    refuse_other_figures(*both(tmp_path, how, ("--metric", "relative-error"), "0.45"))


def test_roles_are_found_in_the_model_without_its_plan(forced, tmp_path):
    folder, _ = forced
    source = io.load(MODEL).sha256
    beside = roles_of(io.load(folder / "made.onnx"), source)
    model = io.load(pathlib.Path(shutil.copy(folder / "made.onnx", tmp_path)))
    assert roles_of(model, source) == beside
    assert beside.count == 300
    assert roles_of(model, "0" * 64) is None


def test_damaged_roles_are_none(forced, tmp_path):
    model = io.load(pathlib.Path(shutil.copy(forced[0] / "made.onnx", tmp_path)))
    for entry in model.proto.metadata_props:
        if entry.key == SAMPLES:
            entry.value = '{"count": "many"}'
    assert roles_of(model, io.load(MODEL).sha256) is None
