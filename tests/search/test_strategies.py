"""Laws of every strategy, and each one's own claims, on menus whose best plan is known."""

import math

import pytest
from menus import NOTHING, Judge, adds_up, predicted, random_menu, small_menu

from onnxcp.plan import Budget, Choice, Plan
from onnxcp.search import STRATEGIES

ERRORS = {"a": 8.0, "b": 2.0}
MOST = {"knapsack": 14, "bisect": 120, "estimate": 33, "vbmf": 6, "genetic": 120, "uniform": 6}


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
class TestEveryStrategy:
    def test_stays_within_the_budget(self, strategy):
        judge, budget = adds_up(ERRORS), Budget(0.35, "")
        plan = strategy(small_menu(ERRORS), budget, judge)
        assert plan.choices
        assert judge.asked[plan.key].within(budget)

    def test_returns_the_empty_plan_where_nothing_fits(self, strategy):
        assert strategy(small_menu(ERRORS), Budget(0.0, ""), adds_up(ERRORS)) == Plan()

    @pytest.mark.parametrize("loss", [math.inf, math.nan], ids=["infinite", "not a number"])
    def test_returns_the_empty_plan_where_models_break(self, strategy, loss):
        assert strategy(small_menu(ERRORS), Budget(0.1, ""), Judge(lambda plan: loss)) == Plan()

    def test_takes_the_fastest_of_all_where_everything_fits(self, strategy):
        plan = strategy(
            small_menu({"a": 0.01, "b": 0.01}), Budget(1.0, ""), Judge(lambda plan: 0.0)
        )
        assert plan.choices == {"a": Choice("cp4", 16), "b": Choice("cp4", 16)}

    def test_an_empty_menu_gives_the_empty_plan(self, strategy):
        assert strategy(NOTHING, Budget(1.0, ""), adds_up({})) == Plan()
        assert strategy(NOTHING, Budget(1.0, "", seconds=-1.0), adds_up({})) == Plan()

    @pytest.mark.parametrize("seconds", [100.0 + 2 * 14.4, 150.0, 200.0, 255.0])
    def test_is_as_fast_as_a_budget_of_time_asks(self, strategy, seconds):
        menu = small_menu(ERRORS)
        plan = strategy(menu, Budget(0.0, "", seconds), adds_up(ERRORS))
        assert plan.choices
        assert menu.seconds(plan) <= seconds

    def test_a_time_that_no_plan_has_gives_the_empty_plan(self, strategy):
        assert strategy(small_menu(ERRORS), Budget(9.0, "", 128.0), adds_up(ERRORS)) == Plan()

    def test_a_model_that_is_fast_enough_is_left(self, strategy):
        assert strategy(small_menu(ERRORS), Budget(9.0, "", 260.0), adds_up(ERRORS)) == Plan()

    def test_more_time_loses_no_more(self, strategy):
        menu, judge = small_menu(ERRORS), adds_up(ERRORS)
        plans = [strategy(menu, Budget(0.0, "", seconds), judge) for seconds in (130.0, 180.0)]
        assert judge.loss(plans[1]) < judge.loss(plans[0])

    def test_is_repeatable(self, strategy):
        menu, budget = random_menu(1), Budget(0.02, "")
        judges = [Judge(lambda plan: predicted(menu, plan), noise=0.005) for _ in range(2)]
        plans = [strategy(menu, budget, judge) for judge in judges]
        assert plans[0] == plans[1]
        assert list(judges[0].asked) == list(judges[1].asked)


@pytest.mark.parametrize(("name", "strategy"), STRATEGIES.items(), ids=STRATEGIES)
def test_judgements_are_few(name, strategy):
    menu = random_menu(2, sites=8, ranks=8)
    judge = Judge(lambda plan: predicted(menu, plan), noise=0.01)
    strategy(menu, Budget(0.05, ""), judge)
    assert 0 < len(judge.asked) <= MOST[name]


@pytest.mark.parametrize("name", ["knapsack", "estimate", "vbmf", "uniform"])
def test_a_budget_of_time_takes_no_judgement(name):
    judge = adds_up(ERRORS)
    assert STRATEGIES[name](small_menu(ERRORS), Budget(0.0, "", 180.0), judge).choices
    assert not judge.asked


@pytest.mark.parametrize("seed", range(4))
def test_none_is_faster_than_the_knapsack_where_losses_add_up_as_predicted(seed):
    menu, budget = random_menu(seed), Budget(0.03, "")
    judge = Judge(lambda plan: 0.7 * predicted(menu, plan))
    seconds = {n: menu.seconds(strategy(menu, budget, judge)) for n, strategy in STRATEGIES.items()}
    assert min(seconds.values()) == seconds["knapsack"] < menu.total
