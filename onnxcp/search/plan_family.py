"""Families of plans: ordered from the least loss to the fastest, one of which fits a budget.

Most strategies reduce the ranks of all sites to one number: a multiple of the channels, a share
of the parameters, a loss that each site may cause. The plans along that number are a family:
each one is faster than the one before, and loses more. A family holds functions that build
plans, so that only the plans looked at are built. `best_of` adds the empty plan before a family
and the fastest plan after it.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from functools import partial

from onnxcp.plan import Budget, Candidate, Judge, Menu, Plan

Family = Sequence[Callable[[], Plan]]


def best_of(family: Family, menu: Menu, budget: Budget, judge: Judge) -> Plan:
    """The fastest plan within a loss budget, or the first plan within a time budget.

    Found by bisection. Empty if no plan of the family is within the budget.
    """
    plans: list[Callable[[], Plan]] = [Plan, *family, partial(fastest, menu)]
    if budget.seconds is None:
        over = bisect_left(plans, True, key=lambda plan: _exceeds(plan(), budget, judge))
        return plans[over - 1]()
    limit = budget.seconds
    enough = bisect_left(plans, True, key=lambda plan: menu.seconds(plan()) <= limit)
    return plans[enough]() if enough < len(plans) else Plan()


def _exceeds(plan: Plan, budget: Budget, judge: Judge) -> bool:
    return bool(plan.choices) and not judge(plan).within(budget)


def fastest(menu: Menu) -> Plan:
    """Every site's fastest candidate."""
    return at_ranks(menu, dict.fromkeys(menu.sites, 0.0))


def at_ranks(menu: Menu, targets: Mapping[str, float | Fraction]) -> Plan:
    """Every site's fastest candidate of at least its target rank; sites without one are left."""
    return plan_of(
        quickest(c for c in candidates if c.choice.rank >= targets[name])
        for name, candidates in menu.sites.items()
    )


def quickest(candidates: Iterable[Candidate]) -> Candidate | None:
    """The fastest candidate; None if there are none."""
    return min(candidates, key=lambda c: c.seconds, default=None)


def plan_of(candidates: Iterable[Candidate | None]) -> Plan:
    """The plan of these candidates, at most one per site; None leaves a site unchanged."""
    return Plan({c.site: c.choice for c in candidates if c is not None})
