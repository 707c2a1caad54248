"""Rounds of search, on arithmetic: what is judged where, and when it ends."""

import math
import pathlib
from types import SimpleNamespace

import pytest

from onnxcp.fitting.fits import FULL
from onnxcp.forms import DRAFT
from onnxcp.optimization.menu import Law
from onnxcp.optimization.outcome import Outcome
from onnxcp.optimization.rounds import ROUNDS, Search, effort_for, search
from onnxcp.optimization.scores import Court, Judged, TimeIsUp, best
from onnxcp.plan import Budget, Candidate, Choice, Menu, Original, Plan, Score
from onnxcp.results import AccuracyRecord

MODEL = pathlib.Path(__file__).parents[2] / "models/digits.onnx"
RANKS = tuple(range(16, 16 * 21, 16))


def menu(parameters=1000):
    """One site: rank R takes R milliseconds of 400 and loses 1 / R."""
    candidates = [Candidate("a", Choice("cp3", rank), 1e-3 * rank, rank) for rank in RANKS]
    return Menu(
        sites={"a": candidates},
        originals={"a": Original(0.4, parameters, 64)},
        total=1.0,
        loss=lambda c: 1 / c.choice.rank,
        spectra=lambda name: [],
    )


def rank(plan):
    return plan.choices["a"].rank


class Bench(Court):
    """A court whose losses are 1 / rank, times `draft` for drafts; it is late after `most`."""

    def __init__(self, draft=1.0, most=math.inf):
        super().__init__(run=None, referee=None)
        self.draft, self.most = draft, most

    def of_model(self, path):
        loss = 1.0 / int(path)
        return Score(loss, 0.0, loss)

    def judge(self, plan, effort):
        key = (plan.sha256, repr(effort))
        if key not in self.trail:
            if len(self.trail) >= self.most:
                raise TimeIsUp
            loss = (self.draft if effort == DRAFT else 1.0) / rank(plan)
            self.trail[key] = Judged(plan, Score(loss, 0.0, loss))
        return self.trail[key].score


def found(limit, court=None, truth=1.0, parameters=1000, seconds=None):
    """The outcome of a search whose plans lose `truth` / rank in the end, and what it tried."""
    tried = []
    nothing = Outcome(Plan(), {}, Budget(limit, "loss", seconds))

    def final(plan):
        tried.append(rank(plan))
        record = AccuracyRecord(
            "top1", 1.0, 0.9, truth / rank(plan), (0.0, 1.0), 100, limit, "made", True
        )
        return Outcome(plan, {}, nothing.budget, accuracy=record, staged=str(rank(plan)))

    subject = menu(parameters)
    effort = effort_for(subject)
    asked = Search(subject, "knapsack", court or Bench(), effort, effort == DRAFT, final)
    return search(asked, nothing), tried


def test_what_holds_in_the_end_is_taken_at_once():
    outcome, tried = found(0.01)
    assert tried == [rank(outcome.plan)] == [112]
    assert outcome.trail.tried == 1
    assert outcome.trail.predicted == pytest.approx(1.0 - 0.4 + 0.112)


def test_what_does_not_hold_in_the_end_makes_the_search_more_careful():
    outcome, tried = found(0.01, truth=1.7)
    assert tried == sorted(tried)
    assert len(tried) == 2
    assert outcome.accuracy.drop <= 0.01


def test_rounds_end_and_leave_what_lost_too_much_to_be_refused():
    outcome, tried = found(0.01, truth=50.0)
    assert 1 <= len(tried) <= ROUNDS
    assert outcome.accuracy.drop > 0.01


def test_no_plan_within_the_limit_is_no_outcome():
    outcome, tried = found(0.001)
    assert (outcome.plan, tried) == (Plan(), [])
    assert len(outcome.trail.judged) > 0


def test_large_kernels_are_judged_by_drafts_and_the_limit_makes_up_for_it():
    assert (effort_for(menu()), effort_for(menu(10**8))) == (FULL, DRAFT)
    outcome, tried = found(0.01, court=Bench(draft=1.5), parameters=10**8)
    assert tried == [160, 112]  # drafts at 1.5 / 160 < 0.01, then what full fits allow
    assert rank(outcome.plan) == 112


def test_a_looser_limit_that_does_not_hold_is_halved_till_one_does():
    outcome, tried = found(0.01, court=Bench(draft=1.5), truth=1.4, parameters=10**8)
    assert tried == [160, 112, 128, 144]
    assert rank(outcome.plan) == 144


def test_a_budget_of_time_takes_the_plan_that_loses_least():
    outcome, tried = found(math.inf, seconds=0.7)
    assert tried == [rank(outcome.plan)]
    assert menu().seconds(outcome.plan) <= 0.7
    assert rank(outcome.plan) == 96


def test_a_late_search_takes_the_best_plan_till_then():
    outcome, tried = found(0.01, court=Bench(most=2))
    assert outcome.trail.is_late
    assert len(outcome.trail.judged) == 2
    assert tried == ([rank(outcome.plan)] if outcome.plan.choices else [])


def test_the_best_plan_till_then_serves_the_budget():
    court = Bench()
    for r in (64, 128, 256):
        court.judge(Plan({"a": Choice("cp3", r)}), FULL)
    assert rank(best(court, menu(), Budget(0.01, ""))) == 128
    assert rank(best(court, menu(), Budget(math.inf, "", 0.75))) == 128
    assert best(court, menu(), Budget(0.001, "")) == Plan()


class TestLaw:
    def test_goes_through_its_probes(self):
        law = Law.through([(0.1, 0.01), (0.3, 0.15)])
        assert law.of(0.1) == pytest.approx(0.01)
        assert law.of(0.3) == pytest.approx(0.15)

    def test_is_quadratic_where_errors_are_small(self):
        assert Law.through([(0.1, 0.01), (0.3, 0.15)]).of(0.05) == pytest.approx(0.0025)

    def test_is_quadratic_with_one_probe(self):
        assert Law.through([(0.1, 0.01)]).of(0.3) == pytest.approx(0.09)

    def test_of_no_probes_loses_nothing(self):
        assert Law.through([]).of(0.5) == 0.0

    def test_of_a_layer_that_nothing_reads_loses_nothing(self):
        assert Law.through([(0.1, 0.0), (0.3, 0.0)]).of(0.9) == 0.0

    def test_of_a_probe_that_broke_the_model_is_infinite(self):
        assert Law.through([(0.1, math.inf)]).of(0.2) == math.inf

    def test_powers_stay_reasonable(self):
        assert Law.through([(0.1, 1e-9), (0.2, 1.0)]).of(0.4) == pytest.approx(1e-9 * 4**3)


def test_a_court_is_late_once_its_deadline_has_passed():
    with pytest.raises(TimeIsUp):
        Court(SimpleNamespace(), SimpleNamespace(), deadline=0.0).refuse_late()


def test_a_search_by_drafts_finds_what_full_fits_hold(tmp_path, monkeypatch):
    """On a real model, with kernels that count as large."""
    from asked import settings

    from onnxcp.optimization import menu as menus
    from onnxcp.optimization import rounds
    from onnxcp.optimization.pipeline import optimize

    monkeypatch.setattr(menus, "SMALL", 0)
    monkeypatch.setattr(rounds, "SMALL", 0)
    output, data = tmp_path / "out.onnx", (str(MODEL.with_suffix(".npz")),)
    report = optimize(settings(MODEL, output, data=data))
    assert report.exit_code == 0
    assert report.accuracy.drop <= report.accuracy.budget
    assert output.is_file()
    ranks = [site.rank for site in report.replaced]
    assert all((rank // (rank & -rank)) in (1, 3) for rank in ranks)
