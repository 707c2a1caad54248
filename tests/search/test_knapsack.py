"""The knapsack search: tight without noise, careful with it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from menus import Judge, all_plans, predicted, random_menu

from onnxcp.plan import Budget, Plan
from onnxcp.search.knapsack import knapsack
from onnxcp.search.loss_curve import Point, fit

SEEDS = range(8)


def judge_of(menu, law, noise=0.0):
    return Judge(lambda plan: law(predicted(menu, plan)), noise)


@pytest.mark.parametrize("limit", [0.004, 0.02, 0.1])
@pytest.mark.parametrize("seed", SEEDS)
def test_is_optimal_where_losses_add_up_as_predicted(seed, limit):
    menu = random_menu(seed)
    plan = knapsack(menu, Budget(limit, ""), judge_of(menu, lambda loss: 0.3 * loss))
    best = min(seconds for seconds, loss in all_plans(menu) if 0.3 * loss <= limit)
    assert menu.seconds(plan) <= best * 1.005


@pytest.mark.parametrize(
    "law",
    [np.sqrt, lambda loss: 3 * loss**1.4, lambda loss: 1 - np.exp(-2 * loss)],
    ids=["root", "power", "saturating"],
)
@pytest.mark.parametrize("seed", SEEDS)
def test_is_nearly_optimal_where_loss_grows_otherwise(seed, law):
    menu, limit = random_menu(seed, sites=5), law(0.01)
    judge = judge_of(menu, law)
    plan = knapsack(menu, Budget(limit, ""), judge)
    best = min(seconds for seconds, loss in all_plans(menu) if law(loss) <= limit)
    assert judge.asked[plan.key].loss <= limit
    assert menu.seconds(plan) <= best * 1.03


def test_noise_seldom_makes_it_exceed_the_budget_and_never_far():
    limit, true = 0.02, []
    for seed in range(60):
        menu = random_menu(seed, sites=8, ranks=8)
        judge = judge_of(menu, lambda loss: 0.8 * loss, noise=0.3 * limit)
        plan = knapsack(menu, Budget(limit, ""), judge)
        assert judge.asked[plan.key].loss <= limit
        true.append(judge.loss(plan) / limit)
    assert np.mean(np.array(true) > 1.0) < 0.35
    assert np.mean(np.array(true) > 1.2) < 0.05
    assert np.median(true) > 0.75  # and yet most of the budget is used


@pytest.mark.parametrize("seed", SEEDS)
def test_a_budget_of_time_is_met_at_the_least_predicted_loss(seed):
    menu = random_menu(seed)
    for seconds in (0.97 * menu.total, 0.93 * menu.total, 0.89 * menu.total):
        plan = knapsack(menu, Budget(0.0, "", seconds), judge_of(menu, lambda loss: loss))
        best = min(loss for time, loss in all_plans(menu) if time <= seconds)
        assert menu.seconds(plan) <= seconds
        assert predicted(menu, plan) == pytest.approx(best)


def test_only_candidates_thought_unusable_may_be_fast_enough():
    menu = replace(random_menu(0), loss=lambda c: math.inf)
    judge = judge_of(menu, lambda loss: loss)
    fastest = menu.total - 100.0
    assert menu.seconds(knapsack(menu, Budget(0.0, "", fastest), judge)) == fastest
    assert knapsack(menu, Budget(1.0, ""), judge) == Plan()


def test_the_gentlest_plan_is_tried_before_giving_up():
    menu = random_menu(0)
    gentlest = min(loss for _, loss in all_plans(menu) if loss)
    judge = judge_of(menu, lambda loss: 0.0 if loss <= gentlest else 10.0)
    assert predicted(menu, knapsack(menu, Budget(0.01, ""), judge)) == gentlest


def test_a_broken_model_turns_it_back():
    menu = random_menu(0)
    judge = judge_of(menu, lambda loss: loss if loss < 0.01 else math.nan)
    plan = knapsack(menu, Budget(0.005, ""), judge)
    assert plan.choices
    assert judge.asked[plan.key].loss <= 0.005


class TestCurve:
    def test_goes_through_exact_points(self):
        curve = fit([Point(x, 2 * x, 0.0) for x in (0.001, 0.01, 0.1)], limit=0.01)
        assert (curve.scale, curve.exponent, curve.relative_error) == pytest.approx((2, 1, 0))
        assert curve.predicted(0.01) == pytest.approx(0.005)

    @pytest.mark.parametrize("exponent", [0.5, 1.4])
    def test_bends_to_what_is_measured_near_the_limit(self, exponent):
        curve = fit([Point(x, x**exponent, 0.0) for x in (0.1, 0.2, 0.5)], 0.1**exponent)
        assert curve.predicted(0.1**exponent) == pytest.approx(0.1, rel=0.03)

    def test_one_point_is_taken_to_be_in_proportion(self):
        assert fit([Point(0.04, 0.08, 0.01)], limit=0.01).predicted(0.01) < 0.005

    def test_noise_makes_it_careful(self):
        points = [Point(x, x, 0.3 * x) for x in (0.005, 0.02)]
        assert 0.005 < fit(points, limit=0.01).predicted(0.01) < 0.009

    def test_no_loss_measured_is_no_reason_to_stop(self):
        assert fit([Point(0.04, -0.001, 0.002)], limit=0.01).predicted(0.01) == math.inf

    def test_a_broken_model_counts_as_far_above(self):
        assert 0 < fit([Point(0.04, math.inf, 0.0)], limit=0.01).predicted(0.01) < 0.001
