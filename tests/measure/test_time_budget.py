"""Runs within a time budget, on a clock that goes on with the work: nothing waits, and what a
machine takes for each kind of work is made up."""

import json
import re
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from asked import settings
from written import low_rank, model

from onnxcp.fitting import calibrate, task
from onnxcp.latency import candidates
from onnxcp.latency.candidates import AN_OCTAVE
from onnxcp.measure import compare, evaluator, time_budget
from onnxcp.measure.time_budget import TimeBudget
from onnxcp.measure.timing import Speedup
from onnxcp.optimization.fit_pace import FitPace
from onnxcp.optimization.pipeline import optimize
from onnxcp.report.optimize import to_text
from onnxcp.runtime.sessions import Runner

pytestmark = pytest.mark.usefixtures("quiet")
LAYERS = 6
SIDES = (64, 56, 48, 40, 32, 24)  # channels, so that no two layers share a measurement
MOST = 1.2  # times the budget


@dataclass
class Machine:
    """Seconds of a layer's timing, of a sample through a model, and of a number to be fitted."""

    timing: float = 1.0
    sample: float = 0.01
    number: float = 1e-4
    time: float = 0.0
    spent: dict = field(default_factory=dict)

    def spend(self, what, seconds):
        self.time += seconds
        self.spent[what] = self.spent.get(what, 0.0) + seconds


def works_on(monkeypatch, machine):
    """Let the clock go on with what a run does."""
    monkeypatch.setattr(time_budget, "clock", lambda: machine.time)

    def timed(self, feeds):
        machine.spend("samples", machine.sample * len(next(iter(feeds.values()))))
        return run(self, feeds)

    def fitted(given, aim):
        share = given.effort.sweeps / 60
        seconds = machine.number * aim.kernel.size * share
        machine.spend("fits", seconds)
        return replace(fit(given, aim), seconds=seconds)

    def bench(is_enough, runs, watch, least=0.3, most=candidates.SECONDS):
        machine.spend("timing", machine.timing * max(0.3, most) / candidates.SECONDS)
        return until(is_enough, runs, watch)

    def whole(subjects, clock, *, seconds=float("inf"), **given):
        machine.spend("benchmark", min(seconds, 20.0))
        return turns(subjects, clock, **given)

    run, fit, until, turns = Runner.__call__, task.fit, candidates.until, compare.take_turns
    monkeypatch.setattr(Runner, "__call__", timed)
    monkeypatch.setattr(task, "fit", fitted)
    monkeypatch.setattr(candidates, "until", bench)
    monkeypatch.setattr(compare, "take_turns", whole)
    assert calibrate
    assert evaluator


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model of six layers, and samples."""
    folder = tmp_path_factory.mktemp("made")
    nodes, tensors, name = [], {}, "x"
    for number, (width, before) in enumerate(zip(SIDES, (64, *SIDES), strict=False)):
        result = "y" if number == LAYERS - 1 else f"c{number}"
        nodes.append(f"[n{number}] {result} = Conv ({name}, w{number})")
        tensors[f"w{number}"], name = low_rank(number)[:width, :before], result
    interface = f"float[N,64,8,8] x) => (float[N,{SIDES[-1]},8,8] y"
    path = model(folder / "m.onnx", " ".join(nodes), tensors, interface)
    data = np.random.default_rng(0).standard_normal((60, 64, 8, 8)).astype(np.float32)
    np.savez(folder / "d.npz", x=data)
    return path, folder / "d.npz"


def optimized(made, tmp_path, budget, **given):
    path, data = made
    limits = {"data": (str(data),), "max_error": 0.3, "time_budget": budget, "overwrite": True}
    return optimize(settings(path, tmp_path / "o.onnx", **limits, **given))


MACHINES = {
    "where all is quick": Machine(),
    "with slow timing": Machine(timing=20.0),
    "with slow samples": Machine(sample=0.15),
    "with slow fits": Machine(number=4e-3),
    "where all is slow": Machine(timing=10.0, sample=0.1, number=1e-3),
}


@pytest.mark.parametrize("name", MACHINES)
def test_a_run_ends_in_time_with_a_plan_judged_on_a_machine(name, made, tmp_path, monkeypatch):
    given = MACHINES[name]
    machine = Machine(given.timing, given.sample, given.number)
    works_on(monkeypatch, machine)
    report = optimized(made, tmp_path, 100.0)
    assert machine.time <= MOST * 100.0, machine.spent
    assert len(report.search.judged) >= 1
    assert report.accuracy is not None
    assert sum(report.stages.values()) == pytest.approx(machine.time)


@pytest.mark.parametrize("name", ["with slow fits", "where all is slow"])
def test_a_hurried_plan_replays_to_the_same_bytes(name, made, tmp_path, monkeypatch):
    given = MACHINES[name]
    works_on(monkeypatch, Machine(given.timing, given.sample, given.number))
    report = optimized(made, tmp_path, 100.0)
    assert report.exit_code == 0, report.verdict
    first, plan = (tmp_path / "o.onnx").read_bytes(), tmp_path / "o.plan.json"
    noted = json.loads(plan.read_text())["fits"]
    assert noted["drafts"] or noted["calibration_samples"]
    kept = plan.rename(tmp_path / "kept.plan.json")
    again = optimized(made, tmp_path, None, plan=kept)
    assert again.exit_code == 0
    assert (tmp_path / "o.onnx").read_bytes() == first


@pytest.fixture
def only_faster(monkeypatch):
    """A function that lets chains be slower in all layers but those named."""
    real = candidates._plain

    def install(*names):
        def plain(bench, choices):
            found = real(bench, choices)
            if bench.context.site.name in names:
                return found
            slower = Speedup(0.5, 0.4, 0.6)
            return replace(found, tried=tuple(replace(m, against=slower) for m in found.tried))

        monkeypatch.setattr(candidates, "_plain", plain)

    return install


def kinds(report):
    return [site.kind for site in report.sites]


def test_timing_goes_on_until_a_chain_is_faster_and_no_longer(
    made, tmp_path, monkeypatch, only_faster
):
    machine = Machine(timing=18.0)
    works_on(monkeypatch, machine)
    only_faster("n2")
    report = optimized(made, tmp_path, 100.0)
    assert kinds(report) == ["not-faster"] * 2 + ["measured"] + ["not-timed"] * 3
    assert machine.time <= MOST * 100.0, machine.spent


def test_time_that_fits_leave_over_goes_to_layers_not_timed_yet(made, tmp_path, monkeypatch):
    machine = Machine(timing=10.0, sample=1e-3, number=1e-6)
    works_on(monkeypatch, machine)
    report = optimized(made, tmp_path, 100.0)
    assert machine.spent["timing"] > 35.0
    assert "not-timed" not in kinds(report)
    assert report.exit_code == 0
    assert machine.time <= MOST * 100.0, machine.spent


def test_fits_that_use_their_share_leave_no_time_for_more_layers(made, tmp_path, monkeypatch):
    machine = Machine(timing=10.0, number=1e-3)
    works_on(monkeypatch, machine)
    report = optimized(made, tmp_path, 100.0)
    assert kinds(report)[3:] == ["not-timed"] * 3
    assert report.search.judged
    assert machine.time <= MOST * 100.0, machine.spent


def test_timing_that_the_budget_ended_is_not_said_to_have_found_nothing_faster(
    made, tmp_path, monkeypatch, only_faster
):
    works_on(monkeypatch, Machine(timing=15.0))
    only_faster()
    report = optimized(made, tmp_path, 100.0)
    assert kinds(report) == ["not-faster"] * 4 + ["not-timed"] * 2
    assert (report.exit_code, report.reason["kind"]) == (1, "timing-late")
    assert "100 s ended the timing with 2 of 6 layers not timed" in report.verdict
    assert "raise <<time_budget>>" in report.verdict


def test_where_all_was_timed_in_time_nothing_is_faster(made, tmp_path, monkeypatch, only_faster):
    works_on(monkeypatch, Machine(timing=10.0))
    only_faster()
    report = optimized(made, tmp_path, 100.0)
    assert report.reason["kind"] == "none-faster"
    assert set(kinds(report)) == {"not-faster"}


def test_a_budget_that_suffices_hurries_nothing(made, tmp_path, monkeypatch):
    works_on(monkeypatch, Machine(timing=0.1, sample=1e-4, number=1e-7))
    hurried = optimized(made, tmp_path, 1000.0)
    first = (tmp_path / "o.onnx").read_bytes()
    whole = optimized(made, tmp_path, None)
    assert (tmp_path / "o.onnx").read_bytes() == first
    assert hurried.plan == whole.plan
    assert not any("hurry" in warning for warning in hurried.warnings)


def test_the_split_of_the_time_is_told(made, tmp_path, monkeypatch):
    works_on(monkeypatch, Machine())
    report = optimized(made, tmp_path, 100.0)
    assert "time candidates" in report.stages
    assert " s of 100: " in to_text(report, 200)


def test_a_note_of_what_is_to_do_comes_after_the_first_fit(made, tmp_path):
    notes = []

    def heard(phase, done, total):
        if total == 0:
            notes.append(phase)

    path, data = made
    limits = {"data": (str(data),), "max_error": 0.3, "time_budget": 600.0}
    optimize(settings(path, tmp_path / "o.onnx", **limits), progress=heard)
    (note,) = notes
    told = re.fullmatch(
        r"(\d) layers, at most \d+ drafts of fits in about \d+\.\d min, about \d+ judgements; "
        r"\d+\.\d min of the time budget are left",
        note,
    )
    assert told
    assert 1 <= int(told.group(1)) <= LAYERS


def test_a_fit_that_would_end_too_late_is_not_begun(monkeypatch):
    monkeypatch.setattr(time_budget, "clock", lambda: 10.0)
    pace = FitPace(end=20.0, parallel=1)
    assert pace.affords(10**9)
    pace.note(100, 50.0)
    assert pace.affords(10**9)
    pace.note(100, 5.0)
    assert pace.affords(199)
    assert not pace.affords(200)


def test_stages_that_begin_late_still_get_a_little(monkeypatch):
    time = [0.0]
    monkeypatch.setattr(time_budget, "clock", lambda: time[0])
    budget = TimeBudget(100.0)
    assert budget.end_of("timing") == pytest.approx(32.0)
    time[0] = 90.0
    assert budget.end_of("timing") == pytest.approx(97.0)
    assert 1.0 < budget.at_most(20.0, 1.0) < 10.0
    time[0] = 200.0
    assert budget.at_most(20.0, 1.0) == 1.0
    assert AN_OCTAVE > 1
