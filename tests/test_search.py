"""Strategies on arithmetic menus whose best plan is known."""

import pytest

from onnxcp.plan import Budget, Candidate, Choice, Menu, Plan, Score
from onnxcp.search import STRATEGIES
from onnxcp.search.bisect import at_error

ERRORS = {"a": 8.0, "b": 2.0}


def menu(errors, asked=None):
    """Two sites; a candidate of rank R takes R milliseconds; cp4 errs twice as much."""

    def error(candidate):
        if asked is not None:
            asked.append((candidate.site, candidate.choice))
        scale = {"cp3": 1.0, "cp4": 2.0}[candidate.choice.form]
        return scale * errors[candidate.site] / candidate.choice.rank

    ranks = (16, 32, 48, 64)
    speed = {"cp3": 1.0, "cp4": 0.9}
    sites = {
        site: [
            Candidate(site, Choice(form, rank), rank * speed[form])
            for form in speed
            for rank in ranks
        ]
        for site in errors
    }
    return Menu(sites, error, jobs=2)


def loss_of(errors):
    """A judge that adds up the sites' errors."""

    def judge(plan):
        scale = {"cp3": 1.0, "cp4": 2.0}
        return Score(sum(scale[c.form] * errors[s] / c.rank for s, c in plan.choices.items()))

    return judge


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
class TestEveryStrategy:
    def test_stays_within_the_budget(self, strategy):
        judge, budget = loss_of(ERRORS), Budget(0.3, "")
        plan = strategy(menu(ERRORS), budget, judge)
        assert plan.choices
        assert judge(plan).within(budget)

    def test_returns_the_empty_plan_where_nothing_fits(self, strategy):
        plan = strategy(menu(ERRORS), Budget(0.0, ""), loss_of(ERRORS))
        assert plan == Plan()

    def test_takes_the_fastest_of_all_where_everything_fits(self, strategy):
        plan = strategy(menu({"a": 0.01, "b": 0.01}), Budget(1.0, ""), lambda plan: Score(0.0))
        assert plan.choices == {"a": Choice("cp4", 16), "b": Choice("cp4", 16)}

    def test_an_empty_menu_gives_the_empty_plan(self, strategy):
        assert strategy(Menu({}, lambda c: 0.0), Budget(1.0, ""), lambda p: Score(0.0)) == Plan()


def test_a_site_takes_its_fastest_candidate_within_the_error():
    plan = at_error(menu({"a": 8.0, "b": 2.0}), 0.25)
    assert plan.choices == {"a": Choice("cp3", 32), "b": Choice("cp4", 16)}


def test_a_site_without_an_accurate_candidate_is_left():
    assert set(at_error(menu({"a": 80.0, "b": 2.0}), 0.25).choices) == {"b"}


def test_a_form_that_can_not_be_faster_costs_one_fit():
    asked = []
    at_error(menu({"b": 8.0}, asked), 0.25)
    assert [choice.rank for _, choice in asked if choice.form == "cp4"] == [32]
