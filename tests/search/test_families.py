"""What the strategies that search along one number each claim."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from menus import Judge, adds_up, error, predicted, random_menu, small_menu

from onnxcp.plan import Budget, Choice, Original, Plan, Spectrum
from onnxcp.search.bisect import at_loss, bisect
from onnxcp.search.estimate import at_share, estimate
from onnxcp.search.plan_family import at_ranks, best_of
from onnxcp.search.uniform import multiples, uniform
from onnxcp.search.vbmf import start_rank, vbmf

ERRORS = {"a": 8.0, "b": 2.0}
PLANS = [Plan({"a": Choice("cp3", rank)}) for rank in (64, 48, 32, 16)]


def recipe(plan):
    return lambda: plan


class TestFamily:
    family = [recipe(plan) for plan in PLANS]  # noqa: RUF012

    @pytest.mark.parametrize(
        ("limit", "rank"), [(0.125, 64), (0.2, 48), (0.3, 32), (0.6, 16)], ids=str
    )
    def test_the_harshest_within_the_limit_is_found(self, limit, rank):
        plan = best_of(self.family, small_menu(ERRORS), Budget(limit, ""), adds_up(ERRORS))
        assert plan == Plan({"a": Choice("cp3", rank)})

    @pytest.mark.parametrize(("seconds", "rank"), [(250, 64), (240, 48), (212, 32), (200, 16)])
    def test_the_gentlest_that_is_fast_enough_is_found(self, seconds, rank):
        budget = Budget(0.0, "", seconds)
        plan = best_of(self.family, small_menu(ERRORS), budget, adds_up(ERRORS))
        assert plan == Plan({"a": Choice("cp3", rank)})

    def test_it_ends_with_the_fastest_of_all(self):
        menu = small_menu(ERRORS)
        assert menu.seconds(best_of([], menu, Budget(9.0, ""), adds_up(ERRORS))) == 128.8

    def test_only_plans_that_are_looked_at_are_made(self):
        made = []

        def make(number):
            made.append(number)
            return Plan({"a": Choice("cp3", 64)})

        family = [partial(make, number) for number in range(1000)]
        best_of(family, small_menu(ERRORS), Budget(9.0, ""), adds_up(ERRORS))
        assert len(made) <= 10

    def test_a_target_above_all_ranks_leaves_the_site(self):
        assert at_ranks(small_menu(ERRORS), {"a": 65, "b": 33}).choices == {"b": Choice("cp4", 48)}


def alone(errors, asked):
    """What a candidate loses alone; notes that it was asked."""

    def loss(candidate):
        asked.append(candidate.choice)
        return error(errors, candidate.site, candidate.choice)

    return loss


class TestBisect:
    @pytest.mark.parametrize(
        ("loss", "choices"),
        [
            (0.25, {"a": Choice("cp3", 32), "b": Choice("cp4", 16)}),
            (0.05, {"b": Choice("cp3", 48)}),
            (0.01, {}),
        ],
        ids=str,
    )
    def test_a_site_takes_its_fastest_candidate_that_alone_loses_so_little(self, loss, choices):
        assert at_loss(small_menu(ERRORS), alone(ERRORS, []), loss).choices == choices

    def test_a_form_that_can_not_be_faster_costs_one_judgement(self):
        asked = []
        at_loss(small_menu({"b": 8.0}), alone({"b": 8.0}, asked), 0.25)
        assert [choice.rank for choice in asked if choice.form == "cp4"] == [32]

    def test_a_candidate_is_judged_once(self):
        menu, calls = random_menu(0), []
        judge = Judge(partial(predicted, menu))
        bisect(menu, Budget(0.02, ""), lambda plan: (calls.append(plan.key), judge(plan))[1])
        single = [key for key in calls if len(key) == 1]
        assert len(single) == len(set(single))

    def test_a_loss_that_is_infinite_is_no_end_of_a_range(self):
        menu = small_menu(ERRORS)
        judge = adds_up(ERRORS)
        broken = Judge(lambda plan: np.inf if "a" in plan.choices else judge.loss(plan))
        plan = bisect(menu, Budget(0.0, "", 240.0), broken)
        assert set(plan.choices) == {"b"}


class TestEstimate:
    @pytest.mark.parametrize(
        ("share", "rank"), [(1.0, 64), (0.5, 48), (0.32, 32), (0.319, 16), (0.01, 16)], ids=str
    )
    def test_a_site_takes_the_largest_rank_within_its_share(self, share, rank):
        expected = Choice("cp4" if share > 0.01 else "cp3", rank)
        assert at_share(small_menu(ERRORS), share).choices["a"] == expected

    def test_groups_are_made_faster_while_the_budget_holds(self):
        """Only where the sites are two groups can b, which loses less, go further than a."""
        menu = small_menu(ERRORS)
        originals = {**menu.originals, "b": Original(80.0, 1000, 64)}
        judge, budget = adds_up(ERRORS), Budget(0.4, "")
        apart = estimate(replace(menu, originals=originals), budget, judge)
        together = estimate(menu, budget, judge)
        assert menu.seconds(apart) < menu.seconds(together)
        assert judge.loss(apart) <= 0.4

    def test_equal_sites_stay_equal(self):
        menu = random_menu(3, sites=6)
        rows = {n: [replace(c, site=n) for c in menu.sites["conv0"]] for n in menu.sites}
        originals = dict.fromkeys(rows, menu.originals["conv0"])
        alike = replace(menu, sites=rows, originals=originals)
        plan = estimate(alike, Budget(0.1, ""), Judge(lambda plan: 0.01 * len(plan.choices)))
        assert len({*plan.choices.values()}) == 1
        assert len(plan.choices) == 6


class TestUniform:
    def test_every_site_has_the_same_multiple_of_its_channels(self):
        menu = replace(
            small_menu(ERRORS), originals={"a": Original(80.0, 1, 32), "b": Original(80.0, 1, 16)}
        )
        plan = uniform(menu, Budget(0.76, ""), adds_up(ERRORS))
        assert plan.choices == {"a": Choice("cp4", 32), "b": Choice("cp4", 16)}

    def test_its_plans_get_faster_from_one_to_the_next(self):
        menu = random_menu(0, sites=6)
        seconds = [menu.seconds(make()) for make in multiples(menu)]
        assert seconds == sorted(seconds, reverse=True)

    def test_multiples_are_exact(self):
        """64/48 of 48 channels is 64, though not in floating point."""
        menu = replace(small_menu(ERRORS), originals=dict.fromkeys("ab", Original(80.0, 1, 48)))
        assert multiples(menu)[0]().choices == dict.fromkeys("ab", Choice("cp4", 64))


class TestVbmf:
    def spectra(self, ranks):
        def of(site):
            rng = np.random.default_rng(0)
            for rank in ranks[site]:
                left, right = rng.standard_normal((64, rank)), rng.standard_normal((rank, 96))
                matrix = left @ right + 0.1 * rng.standard_normal((64, 96))
                yield Spectrum(tuple(np.linalg.svd(matrix, compute_uv=False)), 64, 96)

        return of

    def test_a_site_starts_at_the_larger_rank_of_its_spectra(self):
        menu = replace(small_menu(ERRORS), spectra=self.spectra({"a": (12, 15)}))
        assert start_rank(menu, "a") == 15

    def test_a_useless_rank_is_floored_at_a_quarter_of_the_channels(self):
        menu = replace(small_menu(ERRORS), spectra=self.spectra({"a": (1, 2)}))
        assert start_rank(menu, "a") == 8
        assert start_rank(replace(menu, spectra=lambda site: []), "a") == 8

    def test_all_start_ranks_are_multiplied_by_one_factor(self):
        menu = replace(small_menu(ERRORS), spectra=self.spectra({"a": (24,), "b": (12,)}))
        seconds = menu.total - 2 * 80 + 0.9 * (48 + 32)
        plan = vbmf(menu, Budget(0.0, "", seconds), adds_up(ERRORS))
        assert plan.choices == {"a": Choice("cp4", 48), "b": Choice("cp4", 32)}
