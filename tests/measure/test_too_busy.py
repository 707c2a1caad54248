"""What each command does where the machine is too busy to measure: a clear no, never a ratio."""

import json
import pathlib
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
from asked import settings
from example_sites import context, site
from tiny import chain_model
from typer.testing import CliRunner

from onnxcp.chain import Geometry, Stage
from onnxcp.cli import app
from onnxcp.data.roles import Sources, prepare
from onnxcp.graph import io
from onnxcp.latency import candidates, shortcut_timing, tabulate
from onnxcp.latency import listing as inspect
from onnxcp.latency.candidates import Latency, measure
from onnxcp.latency.table import from_document, to_document
from onnxcp.measure import adaptive_turns, benchmark, compare
from onnxcp.measure.stopwatch import Run, Stopwatch
from onnxcp.optimization import pipeline
from onnxcp.optimization.decision import decide
from onnxcp.optimization.outcome import Outcome
from onnxcp.optimization.reasons import Kind
from onnxcp.plan import Budget, Choice, Plan
from onnxcp.report.json import schema
from onnxcp.results import AccuracyRecord
from onnxcp.runtime.providers import Target

MODEL = pathlib.Path(__file__).parents[2] / "models/digits.onnx"
CPU = Target.named("cpu", 1)


@pytest.fixture
def small(tmp_path):
    """A model of one convolution with few candidates."""
    kernel = np.random.default_rng(0).standard_normal((32, 32, 3, 3)).astype(np.float32)
    chain = (Stage("dense", kernel, Geometry(pads=(1, 1, 1, 1)), 1, None),)
    path = tmp_path / "small.onnx"
    path.write_bytes(chain_model(chain, (1, 32, 8, 8), kernel.dtype))
    return path


class Busy(Stopwatch):
    """A machine on which every run waits for a core, at first or for good. Its clock runs by
    itself, so that no test waits."""

    def __init__(self, seconds=float("inf"), processor=None):
        super().__init__()
        self.until, self.processor, self.now = seconds, processor, 0.0

    def __call__(self):
        self.now += 0.01
        return self.now

    def start(self):
        pass

    def stop(self):
        self.now += 0.5
        return Run(0.5, self.processor, 0.4 if self.now < self.until else 0.0)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def report(small, code, *options):
    """The report of a run of `optimize`, and whether it wrote a model."""
    path, out = small.parent / "run.json", small.parent / "out.onnx"
    common = ["--threads", 1, "--jobs", 1, "--form", "cp3", "--iterations", 8]
    ended = run("optimize", small, "-o", out, *common, "--report", path, "--no-cache", *options)
    assert ended.exit_code == code, ended.output
    document = json.loads(path.read_text())
    jsonschema.validate(document, schema())
    return document, out.exists()


@pytest.mark.parametrize("others", [[], [MODEL]], ids=["one model", "two"])
def test_benchmark_ends_with_a_clear_no_and_no_figure(others, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "stopwatch", lambda target: Busy())
    kept = tmp_path / "b.json"
    options = ["--duration", 0, "--fail-if-slower", "5%"] if others else ["--duration", 0]
    ended = run("benchmark", MODEL, *others, *options, "--report", kept)
    assert (ended.exit_code, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: the machine is too busy to measure: other work ran in 100%")
    assert not kept.exists()


def test_a_baseline_of_two_models_is_compared_in_processor_time_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "stopwatch", lambda target: Busy(processor=0.1))
    kept = tmp_path / "b.json"
    ended = run("benchmark", MODEL, MODEL, "--duration", 0, "--report", kept)
    assert ended.exit_code == 0, ended.output
    assert "in processor time: other work ran in 100 of 100 turns" in ended.stdout
    (row,) = json.loads(kept.read_text())["runs"]
    assert (row["disturbed"], row["turns"], row["by_processor"]) == (100, 100, True)
    assert row["verdict"] == "no significant difference"


def test_profile_ends_with_a_clear_no(small, tmp_path, monkeypatch):
    for module in (tabulate, compare):
        monkeypatch.setattr(module, "stopwatch", lambda target: Busy())
    out = tmp_path / "table.json"
    ended = run("profile", small, "-o", out, "--form", "cp3")
    assert (ended.exit_code, ended.stdout, out.exists()) == (1, "", False)
    assert "too busy to measure" in ended.stderr


def test_inspect_shows_no_time_it_does_not_know(small, monkeypatch):
    monkeypatch.setattr(inspect, "stopwatch", lambda target: Busy())
    ended = run("inspect", small, "--profile")
    assert (ended.exit_code, ended.stdout) == (1, "")


def test_a_candidate_that_other_work_disturbed_is_timed_again():
    watch = Busy(seconds=12.0)  # longer than one context is given
    (row,) = measure({"a": [Choice("cp3", 16)]}, [context(site())], CPU, watch).values()
    assert watch.now > 12.0
    assert row.busy is None
    assert [m.choice.rank for m in row.tried] == [16]


def test_what_cannot_be_measured_is_not_called_equal():
    (row,) = measure({"a": [Choice("cp3", 16)]}, [context(site())], CPU, Busy()).values()
    assert row.tried == ()
    assert "too busy to measure" in row.busy


def test_waiting_for_the_machine_has_an_end():
    watch = Busy()
    measure({"a": [Choice("cp3", 16)]}, [context(site())], CPU, watch)
    most = candidates.TRIES * (adaptive_turns.SECONDS * adaptive_turns.PATIENCE + 60.0)
    assert watch.now < most


def busy_candidates(monkeypatch):
    """Candidates cannot be measured, whole models can."""
    watches = [Busy()]
    monkeypatch.setattr(
        tabulate, "stopwatch", lambda target: watches.pop() if watches else Stopwatch()
    )


def test_layers_that_cannot_be_measured_are_said_to_be_such(small, monkeypatch):
    busy_candidates(monkeypatch)
    found, is_written = report(small, 1)
    assert not is_written
    assert "layers could not be measured: the machine is too busy" in found["verdict"]
    kept = [row for row in found["sites"] if row["kind"] == "busy"]
    assert kept
    for row in kept:
        assert row["reason"].startswith("could not be measured: the machine is too busy")
        assert row["ms_before"] is None


def test_a_table_with_layers_that_could_not_be_measured_is_not_kept(small, tmp_path, monkeypatch):
    command = ["optimize", small, "-o", tmp_path / "o.onnx", "--threads", 1, "--form", "cp3"]
    command += ["--max-error", 1e-9, "--cache", tmp_path / "cache"]
    busy_candidates(monkeypatch)
    run(*command)
    assert not list((tmp_path / "cache").rglob("*.json"))
    assert run(*command).exit_code == 1
    assert list((tmp_path / "cache").rglob("*.json"))


def test_a_row_that_could_not_be_measured_is_in_the_file():
    row = Latency(1.0, (), "the machine is too busy")
    table = tabulate.Table(
        "m", {"cpu": "c"}, "cpu", {}, 1, {"x": (1,)}, ("cp3",), 1.0, {"key": row}
    )
    again = from_document(json.loads(json.dumps(to_document(table))))
    assert again == table
    assert again.is_busy


def test_ranks_that_are_given_are_written_without_a_claim(small, monkeypatch):
    for module in (pipeline, compare):
        monkeypatch.setattr(module, "stopwatch", lambda target: Busy())
    found, is_written = report(small, 0, "--rank", "*=16")
    assert is_written
    assert found["verdict"].startswith("ranks as given: the machine is too busy to measure")
    assert found["latency"] is None
    (row,) = [row for row in found["sites"] if row["decision"] != "kept"]
    assert (row["kind"], row["ms_before"]) == ("unmeasured", None)


def test_shortcuts_that_could_not_be_timed_stay_and_nothing_is_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "stopwatch", lambda target: Busy())
    monkeypatch.setattr(shortcut_timing, "_widths", lambda model, inputs: {"x": 1})
    monkeypatch.setattr(shortcut_timing, "_with", lambda model, widths: model)
    model = io.load(MODEL)
    inputs = prepare(model.inputs, Sources())
    made = shortcut_timing.straightened(model, inputs, CPU, "float32", kept_in=tmp_path)
    assert made is model
    assert not list(tmp_path.rglob("*.json"))


def test_no_speed_up_is_claimed_of_a_model_that_could_not_be_timed():
    accuracy = AccuracyRecord("top1", 0.9, 0.9, 0.0, (0.0, 0.0), 5000, 0.01, "d.npz", True)
    given = {"accuracy": accuracy, "staged": MODEL, "busy": "the machine is too busy to measure"}
    outcome = Outcome(Plan({"a": Choice("cp3", 16)}), {}, Budget(0.01, "top1"), **given)
    job = SimpleNamespace(settings=settings(MODEL, MODEL), table=None)
    found = decide(job, outcome, asked="float32")
    assert (found.accepted, found.exit_code) == (False, 1)
    assert found.words == "nothing written, the machine is too busy to measure"
    assert found.reason.kind is Kind.TOO_BUSY
