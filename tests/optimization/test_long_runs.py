"""Runs that are killed, resumed, cut short, or asked for more than one plan."""

import importlib
import json
import pathlib
import shutil
import subprocess
import sys
from itertools import pairwise

import onnx
import pytest
from typer.testing import CliRunner

from onnxcp.cli import app
from onnxcp.errors import UsageError
from onnxcp.options.plan import PlanOptions

pytestmark = pytest.mark.usefixtures("quiet")
ROOT = pathlib.Path(__file__).parents[2]
MODEL, DATA = ROOT / "models/digits.onnx", ROOT / "models/digits.npz"
# Two layers of six, one of them small: the fits of all take ten times as long.
FORM = ["--form", "cp3", "--include", "stem/*", "--include", "block/conv1"]
TIMES = ["--threads", "1", "--jobs", "1", "--iterations", "8"]
QUICK = [*FORM, *TIMES, "--data", DATA, "--max-drop", 0.005]


def onnxcp(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def model(tmp_path):
    """The bundled model in a folder of its own."""
    return pathlib.Path(shutil.copy(MODEL, tmp_path))


def counted(monkeypatch):
    """What a run does anew, by kind."""
    from onnxcp.fitting import calibrate, statistics, task
    from onnxcp.measure import evaluator
    from onnxcp.optimization import run_table

    counts = {"fits": 0, "judgements": 0, "tables": 0, "calibrations": 0}

    def spy(owner, name, kind):
        real = getattr(owner, name)

        def wrapped(*given, **named):
            counts[kind] += 1
            return real(*given, **named)

        monkeypatch.setattr(owner, name, wrapped)

    spy(task, "_computed", "fits")
    spy(evaluator.Referee, "score", "judgements")
    spy(run_table, "tabulate", "tables")
    spy(calibrate, "collect", "calibrations")
    assert statistics
    return counts


def test_a_resumed_run_does_nothing_again_and_writes_the_same(model, tmp_path, monkeypatch):
    work = tmp_path / "work"
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    assert onnxcp("optimize", model, "-o", first, "--work-dir", work, *QUICK).exit_code == 0
    counts = counted(monkeypatch)
    ended = onnxcp("optimize", model, "-o", second, "--work-dir", work, "--resume", *QUICK)
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert counts == dict.fromkeys(counts, 0)
    assert second.read_bytes() == first.read_bytes()


KILLED_IN = {
    "the second fit": ("fitting.task", "_computed", 1),
    "the eighth fit": ("fitting.task", "_computed", 7),
    "the third probe": ("optimization.scores", "Court._probed", 2),
    "the second judgement": ("optimization.scores", "Court._score", 1),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A latency table, and what a run that nobody kills makes with it: model, number of fits."""
    folder = tmp_path_factory.mktemp("whole")
    table, fresh = folder / "latency.json", folder / "fresh.onnx"
    assert onnxcp("profile", MODEL, "-o", table, "--threads", 1, "--form", "cp3").exit_code == 0
    with pytest.MonkeyPatch.context() as patched:
        counts = counted(patched)
        given = ["--latency", table, "--no-cache", *QUICK]
        assert onnxcp("optimize", MODEL, "-o", fresh, *given).exit_code == 0
    return table, fresh.read_bytes(), counts["fits"]


@pytest.mark.parametrize("row", KILLED_IN.values(), ids=KILLED_IN)
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(row, model, whole, tmp_path, monkeypatch):
    module, name, after = row
    owner = importlib.import_module(f"onnxcp.{module}")
    *path, leaf = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real, calls = getattr(owner, leaf), []

    def killed(*given):
        calls.append(1)
        if len(calls) > after:
            raise KeyboardInterrupt
        return real(*given)

    table, fresh, fits = whole
    out = tmp_path / "out.onnx"
    given = ["--latency", table, *QUICK, "--work-dir", tmp_path / "work"]
    with monkeypatch.context() as patched:
        patched.setattr(owner, leaf, killed)
        ended = onnxcp("optimize", model, "-o", out, *given)
    assert ended.exit_code == 130
    assert not out.exists()
    counts = counted(monkeypatch)
    assert onnxcp("optimize", model, "-o", out, *given, "--resume").exit_code == 0
    assert counts["calibrations"] == 0
    assert counts["fits"] < fits
    assert out.read_bytes() == fresh


def begun(tmp_path, **changes):
    """A work folder of a run on MODEL, its note changed."""
    folder = tmp_path / "work"
    from onnxcp import __version__
    from onnxcp.graph import io

    note = {"onnxcp": __version__, "model_sha256": io.load(MODEL).sha256, **changes}
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(note))
    return folder


FOLDERS = {
    "of another model": (lambda p: begun(p, model_sha256="0"), ["--resume"], "another model"),
    "of another version": (lambda p: begun(p, onnxcp="0.0"), ["--resume"], "onnxcp 0.0"),
    "of a run that is not resumed": (begun, [], "pass --resume"),
    "of something else": (lambda p: p, ["--resume"], "not a work folder"),
    "that is a file": (lambda p: p / "digits.onnx", [], "name a folder"),
}


@pytest.mark.parametrize("row", FOLDERS.values(), ids=FOLDERS)
def test_a_work_folder_is_refused(row, model, tmp_path):
    make, more, words = row
    folder = make(tmp_path)
    out = tmp_path / "out.onnx"
    ended = onnxcp("optimize", model, "-o", out, "--work-dir", folder, *more, *QUICK)
    assert ended.exit_code == 2
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not out.exists()


def test_resume_needs_a_work_folder(model):
    ended = onnxcp("optimize", model, "--resume", *QUICK)
    assert (ended.exit_code, "--work-dir" in ended.stderr) == (2, True)


def test_a_time_budget_that_is_too_short_ends_with_one_and_says_so(model):
    ended = onnxcp("optimize", model, "--time-budget", "0.001", "--no-cache", *QUICK)
    assert ended.exit_code == 1
    assert "raise --time-budget" in " ".join(ended.stdout.split())
    assert not model.with_suffix(".cp.onnx").exists()


def test_a_time_budget_that_suffices_changes_nothing(model):
    ended = onnxcp("optimize", model, "--time-budget", "10m", *QUICK)
    assert ended.exit_code == 0
    assert "time budget" not in ended.stdout


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), (None, None)]
)
def test_times_are_read(text, seconds):
    assert PlanOptions(time_budget=text).seconds == seconds


@pytest.mark.parametrize("text", ["", "m", "ten", "-5", "0", "inf", "nan"])
def test_times_are_refused(text):
    with pytest.raises(UsageError, match="10m or 2h"):
        PlanOptions(time_budget=text)


def test_a_front_is_a_row_of_models_each_faster_and_less_accurate_than_the_last(model, tmp_path):
    folder, run = tmp_path / "front", tmp_path / "run.json"
    more = ["--pareto", folder, "--report", run]
    assert onnxcp("optimize", model, *more, *QUICK, "--max-drop", 0.03).exit_code == 0
    records = json.loads((folder / "pareto.json").read_text())
    assert records == json.loads(run.read_text())["pareto"]
    assert len(records) >= 2
    for slower, faster in pairwise(records):
        assert slower["speedup"] < faster["speedup"]
        assert slower["drop"] < faster["drop"]
    for record in records:
        path = pathlib.Path(record["path"])
        onnx.checker.check_model(str(path), full_check=True)
        assert path.with_suffix(".plan.json").is_file()


def test_a_front_is_not_written_over_other_files(model, tmp_path):
    ended = onnxcp("optimize", model, "--pareto", tmp_path, *QUICK)
    assert ended.exit_code == 2
    assert "not empty" in ended.stderr


def test_a_target_speedup_is_reached_and_proven(model, tmp_path):
    run, quick = tmp_path / "run.json", QUICK[:-2]
    ended = onnxcp("optimize", model, "--target-speedup", 1.1, "--report", run, *quick)
    report = json.loads(run.read_text())
    assert ended.exit_code == 0
    assert report["latency"]["speedup"] >= 1.1
    assert report["accuracy"]["budget"] is None


def test_a_target_speedup_that_no_chain_reaches_is_a_clear_no(model):
    ended = onnxcp("optimize", model, "--target-speedup", 500, *QUICK[:-2])
    assert ended.exit_code == 1
    assert "not 500× faster" in ended.stdout


def test_a_target_speedup_over_the_budget_is_refused(model):
    ended = onnxcp("optimize", model, "--target-speedup", 1.1, "--max-error", 1e-6, *QUICK[:-2])
    assert ended.exit_code == 1
    assert "over budget" in ended.stdout


@pytest.mark.parametrize("value", ["1", "0.5", "-2", "nan"])
def test_a_target_speedup_is_refused(value, model):
    ended = onnxcp("optimize", model, "--target-speedup", value, *QUICK)
    assert (ended.exit_code, "--target-speedup" in ended.stderr) == (2, True)


FULL_DISK = """
import resource, sys
from onnxcp.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
main()
"""


def test_a_disk_that_fills_up_ends_in_one_line_and_the_run_goes_on_when_there_is_room(
    model, tmp_path
):
    """No file may grow over 20 kB: the covariances and the model do not fit."""
    out, work = tmp_path / "out.onnx", ["--work-dir", tmp_path / "work"]
    command = ["optimize", model, "-o", out, *work, *QUICK]
    full = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode == 2, full.stderr
    assert full.stderr.count("\n") == 1
    assert "free space" in full.stderr
    assert not out.exists()
    assert onnxcp(*command, "--resume").exit_code == 0
    assert out.is_file()
