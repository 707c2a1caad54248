"""The frontier against every plan there is."""

from dataclasses import replace

import numpy as np
import pytest
from menus import NOTHING, all_plans, predicted, random_menu

from onnxcp.plan import Plan
from onnxcp.search.frontier import frontier

SEEDS = range(8)


def of(seed):
    menu = random_menu(seed)
    return menu, frontier(menu)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_plan_is_as_fast_at_less_predicted_loss(seed):
    menu, found = of(seed)
    plans = sorted(all_plans(menu))
    least = np.minimum.accumulate([loss for _, loss in plans])
    corners = np.flatnonzero(np.append(True, np.diff(least) < 0))
    assert [plans[i][0] for i in reversed(corners)] == pytest.approx(menu.total - found.saved)
    assert least[corners[::-1]] == pytest.approx(found.loss)


@pytest.mark.parametrize("seed", SEEDS)
def test_plans_are_what_the_frontier_says(seed):
    menu, found = of(seed)
    plans = [found.plan(position) for position in range(len(found))]
    assert [menu.total - menu.seconds(plan) for plan in plans] == pytest.approx(found.saved)
    assert [predicted(menu, plan) for plan in plans] == pytest.approx(found.loss)


@pytest.mark.parametrize("seed", SEEDS)
def test_saving_and_loss_grow_from_plan_to_plan(seed):
    _, found = of(seed)
    assert (np.diff(found.saved) > 0).all()
    assert (np.diff(found.loss) > 0).all()
    assert found.plan(0) == Plan()


def test_off_the_grid_a_site_costs_at_most_a_level():
    exact = random_menu(3)
    rng = np.random.default_rng(0)
    sites = {
        name: [replace(c, seconds=c.seconds - rng.uniform(0, 0.9)) for c in row]
        for name, row in exact.sites.items()
    }
    losses = {(c.site, c.choice): exact.loss(c) for row in exact.sites.values() for c in row}
    menu = replace(exact, sites=sites, loss=lambda c: losses[c.site, c.choice])
    found = frontier(menu)
    levels = len(sites) * found.saved[-1] / 9_000
    for seconds, loss in all_plans(menu):
        assert menu.total - found.saved[found.position(loss + 1e-12)] <= seconds + levels


def test_unusable_candidates_are_left_out():
    menu = random_menu(0)
    broken = menu.sites["conv0"]
    losing = replace(menu, loss=lambda c: np.inf if c in broken else menu.loss(c))
    found = frontier(losing)
    assert np.isfinite(found.loss).all()
    assert "conv0" not in found.plan(len(found) - 1).choices


def test_a_slower_candidate_is_left_out():
    menu = random_menu(0)
    slower = [replace(c, seconds=300.0) for c in menu.sites["conv0"]]
    found = frontier(replace(menu, sites={**menu.sites, "conv0": slower}, loss=lambda c: c.seconds))
    assert "conv0" not in found.plan(len(found) - 1).choices


def test_what_loses_nothing_is_in_every_plan():
    menu = random_menu(0)
    found = frontier(replace(menu, loss=lambda c: 0.0 if c.site == "conv0" else menu.loss(c)))
    assert all("conv0" in found.plan(position).choices for position in range(len(found)))
    assert found.loss[0] == 0


def test_of_an_empty_menu_only_the_model_as_it_is_is_left():
    found = frontier(NOTHING)
    assert len(found) == 1
    assert found.plan(0) == Plan()
