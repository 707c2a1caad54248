"""Every reason, by a run that ends with it; what a report says is true, and never contradicts
itself. Times follow from the model (`quiet`); two layers of 1×1 windows are fitted at once."""

import json
import math
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
import quiet
from asked import settings
from pages import as_json
from written import low_rank, model

from onnxcp.fitting import task
from onnxcp.fitting.fits import Fits
from onnxcp.latency import candidates, table
from onnxcp.latency.candidates import Latency, Measured
from onnxcp.measure import time_budget
from onnxcp.measure.timing import Speedup, Timing
from onnxcp.optimization import (
    kept_layers,
    pipeline,
    plan_outcome,
    precisions,
    scores,
    timed_menu,
)
from onnxcp.optimization.pipeline import optimize
from onnxcp.optimization.reasons import Kind, because
from onnxcp.plan import Choice
from onnxcp.report.json import schema
from onnxcp.report.optimize import to_text

pytestmark = pytest.mark.usefixtures("quiet")
NODES = "[a] b = Conv (x, v) c = Relu (b) [d] y = Conv (c, w)"
INTERFACE = "float[1,64,16,16] x) => (float[1,64,16,16] y"
FASTER = "faster"
SAID_FASTER = {  # of layers whose chains are faster, and stay all the same
    Kind.NOT_SURELY_FASTER,
    Kind.TOO_FEW_RANKS,
    Kind.NOT_FITTED,
    Kind.NO_USABLE_FIT,
    Kind.NOT_JUDGED,
    Kind.ALL_OVER_BUDGET,
    Kind.LEFT_BY_PLAN,
    Kind.OUT_OF_REACH,
    Kind.NOTHING_LEFT,
    Kind.LEFT_FOR_INT8,
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder of times and fits that all tests share."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def run(tmp_path, kept):
    """A function that runs `optimize` on a small model; its report, checked."""

    def optimized(nodes=NODES, tensors=None, interface=INTERFACE, **given):
        path = tmp_path / "m.onnx"
        stored = {"v": low_rank(1), "w": low_rank(2)} if tensors is None else tensors
        model(path, nodes, stored, interface)
        given = {"cache": kept, "overwrite": True, **given}
        report = optimize(settings(path, tmp_path / "o.onnx", **given))
        is_sound(report)
        return report

    return optimized


def is_sound(report):
    """The laws of every report."""
    jsonschema.validate(json.loads(as_json(report)), schema())
    by_code = {kind.code: kind for kind in Kind}
    for site in report.sites:
        assert site.reason
        assert "not accurate enough" not in site.reason
        if by_code.get(site.kind) in SAID_FASTER:
            assert FASTER in site.reason
            assert "no significant difference" not in site.reason
        if by_code.get(site.kind) is Kind.NOT_FASTER:
            assert FASTER not in site.reason.partition(";")[2]
    assert report.reason["kind"] in by_code
    if "faster" in report.reason["kind"] and report.exit_code == 0:
        assert "no significant difference" not in report.verdict
    assert (report.exit_code == 0) == (report.model.output is not None)
    text = " ".join(to_text(report, 120).split())
    assert "-0.0" not in text.replace("drop -0.0", "")


def kinds(report):
    return {site.name: site.kind for site in report.sites}


def equal_wholes(monkeypatch, lead=1.0):
    """Whole models that take equally long, however fast their layers are; or the second less."""
    timed = (Timing((lead,) * 8), Timing((1.0,) * 8))
    monkeypatch.setattr(plan_outcome, "time_models", lambda *_, **__: timed)


def test_a_plan_within_the_budget(run):
    report = run(max_error=0.2)
    assert report.exit_code == 0
    assert report.reason["kind"] == "faster"
    assert set(kinds(report).values()) == {"measured"}


def test_layers_that_options_leave_out(run):
    assert kinds(run(include=("a",), max_error=0.2)) == {"a": "measured", "d": "excluded"}
    report = run(exclude=("*",))
    assert report.reason["kind"] == "all-excluded"
    assert set(kinds(report).values()) == {"excluded"}


def test_layers_without_a_rank_and_those_that_a_replayed_plan_does_not_name(run, tmp_path):
    report = run(rank=("a=16",))
    assert report.reason["kind"] == "forced"
    assert kinds(report) == {"a": "measured", "d": "no-rank"}
    plan = (tmp_path / "o.plan.json").rename(tmp_path / "replayed.json")
    again = run(plan=plan)
    assert kinds(again) == {"a": "measured", "d": "not-in-plan"}
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "sites": {}}))
    assert run(plan=plan).reason["kind"] == "empty-plan"


def test_a_plan_that_is_refused_names_what_it_was_refused_for(run):
    report = run(rank=("*=8",), max_error=0.0001)
    assert report.exit_code == 1
    assert report.reason["kind"] == "over-budget"
    assert set(kinds(report).values()) == {"tried"}
    assert all("svd at rank 8" in s.reason and "budget" in s.reason for s in report.sites)


def test_layers_that_no_form_takes_or_saves_in(run):
    report = run(form="cp3")
    assert report.reason["kind"] == "none-saves"
    assert set(kinds(report).values()) == {"refused"}
    tiny = {"v": low_rank(1)[:2, :2], "w": low_rank(2)[:2, :2]}
    report = run(tensors=tiny, interface="float[1,2,8,8] x) => (float[1,2,8,8] y")
    assert report.reason["kind"] == "none-saves"
    assert set(kinds(report).values()) == {"no-saving"}


def test_a_model_without_layers(run):
    report = run("y = Relu (x)", {})
    assert (report.exit_code, report.reason["kind"]) == (1, "no-layers")


def test_layers_that_no_chain_is_faster_than(run, monkeypatch):
    monkeypatch.setattr(quiet, "NODE", 1.0)
    report = run(cache=None)
    assert report.reason["kind"] == "none-faster"
    assert set(kinds(report).values()) == {"not-faster"}
    assert all("slower" in site.reason for site in report.sites)


def measured(rank, low, high, seconds):
    return Measured(Choice("svd", rank), seconds, Speedup((low + high) / 2, low, high))


def test_a_chain_that_is_faster_only_by_chance_is_said_to_be_so(run, monkeypatch):
    """Of two ranks that take as long, the larger one is not surely faster: both are dropped."""
    row = Latency(1.0, (measured(16, 1.02, 1.06, 0.96), measured(32, 1.0, 1.08, 0.955)))
    real = table.Table.of

    def of(self, *given):
        return dict.fromkeys(real(self, *given), row)

    monkeypatch.setattr(table.Table, "of", of)
    report = run()
    assert report.reason["kind"] == "none-faster"
    assert set(kinds(report).values()) == {"not-surely-faster"}


def test_chains_of_too_few_ranks_are_said_to_be_too_poor(run, monkeypatch):
    monkeypatch.setattr(kept_layers, "least_rank", lambda _: 1000.0)
    monkeypatch.setattr("onnxcp.optimization.menu.least_rank", lambda _: 1000.0)
    report = run()
    assert report.reason["kind"] == "no-candidate"
    assert set(kinds(report).values()) == {"too-few-ranks"}


def test_fits_that_are_not_usable_are_said_to_be(run, monkeypatch):
    monkeypatch.setattr(Fits, "error", lambda *_: math.inf)
    report = run()
    assert report.reason["kind"] == "no-candidate"
    assert set(kinds(report).values()) == {"no-usable-fit"}


@pytest.fixture
def hurried(monkeypatch):
    """A clock that goes on a minute with every fit and every layer that is timed."""
    time = [0.0]
    monkeypatch.setattr(time_budget, "clock", lambda: time[0])

    def spend(owner, name):
        real = getattr(owner, name)

        def spent(*given, **named):
            time[0] += 60
            return real(*given, **named)

        monkeypatch.setattr(owner, name, spent)

    spend(task, "fit")
    spend(candidates, "_plain")


def test_layers_that_there_was_no_time_for_are_blamed_for_nothing(run, hurried, tmp_path):
    work = {"work_dir": tmp_path / "work"}
    unlike = {"v": low_rank(1), "w": low_rank(2)[:32]}
    interface = "float[1,64,16,16] x) => (float[1,32,16,16] y"
    report = run(tensors=unlike, interface=interface, time_budget=100.0, cache=None, **work)
    assert "not-timed" in kinds(report).values()
    assert set(kinds(report).values()) <= {"not-timed", "all-over-budget", "measured", "not-judged"}
    assert len(report.search.judged) >= 1
    assert "<<resume>>" in report.verdict + "".join(report.warnings)


def test_no_plan_within_the_budget_tells_how_many_were_judged_and_what_the_best_lost(run):
    report = run(max_error=1e-7)
    assert report.reason["kind"] == "none-within"
    assert set(kinds(report).values()) <= {"all-over-budget", "not-judged"}
    assert "all-over-budget" in kinds(report).values()
    lost = min(plan.loss for plan in report.search.judged)
    assert f"{lost:.4g}" in report.verdict
    assert f"{len(report.search.judged)} plans judged, none of them" in report.verdict


def test_time_that_is_over_after_a_judgement_tells_both(run, monkeypatch):
    real = scores.Court.judge
    asked = []

    def judge(self, plan, effort):
        asked.append(plan)
        if len(asked) > 1:
            raise scores.TimeIsUp
        return real(self, plan, effort)

    monkeypatch.setattr(scores.Court, "judge", judge)
    report = run(time_budget=60.0, max_error=1e-7)
    assert report.reason["kind"] == "late-judged"
    assert "1 plan judged" in report.verdict


def test_a_layer_that_the_plan_leaves_tells_what_its_chain_would_have_cost(run):
    hard = np.random.default_rng(0).standard_normal((64, 64, 1, 1)) / 8
    report = run(tensors={"v": low_rank(1), "w": hard}, max_error=0.1)
    assert kinds(report) == {"a": "measured", "d": "left-by-plan"}
    assert "% " in report.sites[1].reason or report.sites[1].reason.endswith("%")


def test_a_speed_that_no_chains_reach(run):
    report = run(target_speedup=500.0)
    assert report.reason["kind"] == "unreachable"
    assert 1 < report.reason["reach"] < 500
    assert set(kinds(report).values()) == {"out-of-reach"}


def test_a_speed_that_the_whole_model_does_not_reach(run, monkeypatch):
    equal_wholes(monkeypatch, lead=1.2)
    report = run(target_speedup=1.5)
    assert report.reason["kind"] == "short-of-target"
    assert "1.20× faster" in report.verdict
    assert "tried" in kinds(report).values()


@pytest.mark.parametrize("lead", [1.0, 1.005, 0.5])
def test_a_whole_model_that_is_not_clearly_faster_is_not_written(run, monkeypatch, lead):
    equal_wholes(monkeypatch, lead)
    report = run(max_error=0.2)
    assert (report.exit_code, report.reason["kind"]) == (1, "slower")
    assert set(kinds(report).values()) == {"tried"}


def only(monkeypatch, is_wanted):
    """Of the models in question those alone of which something holds."""
    real = precisions.fastest

    def fastest(job, found, wanted):
        return real(job, [outcome for outcome in found if is_wanted(outcome)], wanted)

    monkeypatch.setattr(pipeline, "fastest", fastest)


@pytest.fixture
def samples(tmp_path):
    """Samples to calibrate int8 with, without labels."""
    path = tmp_path / "d.npz"
    np.savez(path, x=np.random.default_rng(5).standard_normal((80, 64, 16, 16)).astype("f"))
    return (str(path),)


def test_int8_that_uses_the_whole_budget_leaves_none_for_chains(run, samples):
    report = run(precision="int8", data=samples, max_error=1e-6, include=("a",))
    assert report.exit_code == 1
    assert report.reason["kind"] == "over-budget"
    assert kinds(report) == {"a": "nothing-left", "d": "excluded"}
    assert "int8 alone" in report.sites[0].reason


def test_chains_that_another_model_beats_are_said_to_have_lost_to_it(run, samples, monkeypatch):
    only(monkeypatch, lambda outcome: not outcome.plan.choices)
    report = run(precision="int8", data=samples, max_error=0.3)
    assert report.exit_code == 0
    assert report.model.written == "int8 alone"
    assert "rival" in kinds(report).values()


def test_a_float_model_for_int8_is_said_first(run, samples, monkeypatch):
    only(monkeypatch, lambda outcome: outcome.precision == "float32")
    report = run(precision="int8", data=samples, max_error=0.3)
    assert (report.exit_code, report.reason["kind"]) == (0, "in-float")
    assert report.verdict.startswith("float32 is written, not int8")
    assert (report.precision, report.model.written) == ("float32", "chains in float")
    assert "written chains in float32" in " ".join(to_text(report, 120).split())


@pytest.fixture
def slow_int8(monkeypatch):
    """A machine on which everything is slower in int8, so that chains are fastest in float."""
    monkeypatch.setattr(quiet, "INT8", 2.0)


def test_int8_with_every_layer_faster_in_float_ends_with_a_model(run, samples, slow_int8):
    report = run(precision="int8", data=samples, max_error=0.3, cache=None)
    assert (report.exit_code, report.reason["kind"]) == (0, "in-float")
    assert report.model.written == "chains in float"


def test_where_every_layer_is_faster_in_float_one_stays_in_int8_and_says_so(
    run, samples, slow_int8, monkeypatch
):
    only(monkeypatch, lambda outcome: outcome.precision == "int8" and outcome.plan.choices)
    report = run(precision="int8", data=samples, max_error=0.3, cache=None)
    assert sorted(kinds(report).values()) == ["stays-quantized", "tried"]
    assert "chains in int8" in report.verdict


@pytest.fixture
def profiled(run, tmp_path, monkeypatch):
    """A table of the model's times, as of another machine, and a function that changes it."""
    kept = []
    real = timed_menu.latency_table

    def noted(run, found):
        kept.append(real(run, found))
        return kept[-1]

    with monkeypatch.context() as patched:
        patched.setattr(timed_menu, "latency_table", noted)
        run(exclude=("d",), max_error=1e-7)
        run(max_error=1e-7)

    def written(**changes):
        path = tmp_path / "latency.json"
        there = {**kept[-1].environment, "cpu": "Another CPU"}
        path.write_text(table.to_text(replace(kept[-1], environment=there, **changes)))
        return path

    return written


def test_times_of_another_machine_are_said_to_be(run, profiled):
    report = run(latency=profiled(), max_error=0.2)
    assert report.exit_code == 0
    assert set(kinds(report).values()) == {"measured-there"}


def test_a_table_that_does_not_add_up_proves_nothing_of_another_machine(run, profiled):
    checks = (table.Check(-1.0, 1.0),)
    report = run(latency=profiled(checks=checks), max_error=0.2)
    assert (report.exit_code, report.reason["kind"]) == (1, "unreliable-table")
    assert report.search.is_reliable is False
    assert report.search.scale <= 1.0
    assert report.search.predicted_ms > 0
    assert report.search.checks[0].predicted is None
    assert any("do not add up" in warning for warning in report.warnings)


def test_every_kind_has_a_code_of_its_own():
    assert len({kind.code for kind in Kind}) == len(Kind)


@pytest.mark.parametrize("kind", Kind)
def test_a_reason_takes_all_its_facts_and_no_other(kind):
    facts = dict.fromkeys(kind.fields, 1.0)
    assert because(kind, **facts).words
    with pytest.raises(TypeError, match=kind.name):
        because(kind, **facts, other=1)
