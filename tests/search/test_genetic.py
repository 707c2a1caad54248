"""The genetic search: repeatable, resumable, shared, and never needed."""

import importlib
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
from menus import Judge, predicted, random_menu

from onnxcp.errors import MissingPackage, PlanError
from onnxcp.plan import Budget
from onnxcp.search.genetic import genetic
from onnxcp.search.uniform import uniform

BUDGET = Budget(0.03, "")


@pytest.fixture(autouse=True)
def trials(monkeypatch):
    """Fewer than in earnest."""
    monkeypatch.setattr(importlib.import_module("onnxcp.search.genetic"), "TRIALS", 60)
    return 60


def judge_of(menu):
    return Judge(partial(predicted, menu))


@pytest.mark.parametrize("seed", range(4))
def test_is_at_least_as_good_as_uniform(seed):
    menu = random_menu(seed, sites=5)
    bred, plain = (strategy(menu, BUDGET, judge_of(menu)) for strategy in (genetic, uniform))
    assert menu.seconds(bred) <= menu.seconds(plain)


def test_breeds_plans_that_no_uniform_one_equals():
    menu = random_menu(1)
    bred, plain = (strategy(menu, BUDGET, judge_of(menu)) for strategy in (genetic, uniform))
    assert menu.seconds(bred) < menu.seconds(plain)


def test_another_seed_breeds_others():
    menu = random_menu(1)
    asked = []
    for seed in (0, 1):
        judge = judge_of(menu)
        genetic(replace(menu, seed=seed), BUDGET, judge)
        asked.append(list(judge.asked))
    assert asked[0] != asked[1]


def test_a_plan_is_judged_once():
    menu, calls = random_menu(1, sites=2, ranks=3), []
    judge = judge_of(menu)
    genetic(menu, BUDGET, lambda plan: (calls.append(plan.key), judge(plan))[1])
    assert len(calls) == len(set(calls)) <= 15


def test_too_slow_a_plan_is_not_judged():
    menu = random_menu(1)
    judge = judge_of(menu)
    slowest = 0.93 * menu.total
    plan = genetic(menu, Budget(0.0, "", slowest), judge)
    assert plan.key in judge.asked
    assert len(judge.asked) < 60


class TestJournal:
    def menu(self, tmp_path):
        return replace(random_menu(1), journal=tmp_path / "search.journal")

    def test_gives_what_a_search_without_one_gives(self, tmp_path):
        menu = self.menu(tmp_path)
        kept = genetic(menu, BUDGET, judge_of(menu))
        assert kept == genetic(replace(menu, journal=None), BUDGET, judge_of(menu))

    def test_a_search_that_was_stopped_goes_on(self, tmp_path, trials):
        menu, judged = self.menu(tmp_path), []

        def judge(plan):
            if len(judged) == 25:
                raise KeyboardInterrupt
            judged.append(plan.key)
            return judge_of(menu)(plan)

        with pytest.raises(KeyboardInterrupt):
            genetic(menu, BUDGET, judge)
        rest = judge_of(menu)
        plan = genetic(menu, BUDGET, rest)
        assert plan.choices
        assert 0 < len(rest.asked) <= trials - 25
        assert not set(judged) & set(rest.asked)

    def test_a_search_that_has_ended_judges_nothing(self, tmp_path):
        menu, again = self.menu(tmp_path), Judge(None)
        assert genetic(menu, BUDGET, judge_of(menu)) == genetic(menu, BUDGET, again)

    def test_is_shared(self, tmp_path, trials):
        menu = self.menu(tmp_path)
        judges = [judge_of(menu), judge_of(menu)]
        with ThreadPoolExecutor(2) as pool:
            plans = list(pool.map(lambda judge: genetic(menu, BUDGET, judge), judges))
        assert sum(len(judge.asked) for judge in judges) <= trials + 1
        assert all(menu.seconds(plan) < menu.total for plan in plans)

    @pytest.mark.parametrize(
        ("menu", "budget"),
        [(random_menu(2), BUDGET), (random_menu(1), Budget(0.04, ""))],
        ids=["menu", "budget"],
    )
    def test_of_another_search_is_refused(self, tmp_path, menu, budget):
        mine = self.menu(tmp_path)
        genetic(mine, BUDGET, judge_of(mine))
        with pytest.raises(PlanError, match=r"search\.journal: belongs to another search"):
            genetic(replace(menu, journal=mine.journal), budget, Judge(None))

    @pytest.mark.parametrize("text", ["hello\n\n", "[1]\n", '{"a": 1}\n'])
    def test_what_is_no_journal_is_refused(self, tmp_path, text):
        menu = self.menu(tmp_path)
        menu.journal.write_text(text)
        with pytest.raises(PlanError, match="not the journal of a search"):
            genetic(menu, BUDGET, Judge(None))
        assert menu.journal.read_text() == text

    def test_a_folder_that_is_not_there_is_named(self, tmp_path):
        menu = replace(self.menu(tmp_path), journal=tmp_path / "none" / "journal")
        with pytest.raises(PlanError, match="none/journal: No such file"):
            genetic(menu, BUDGET, Judge(None))


def test_without_optuna_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingPackage, match=r"pip install 'onnxcp\[search\]'"):
        genetic(random_menu(0), BUDGET, Judge(None))
