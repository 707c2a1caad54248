"""Plans in a row from gentle to harsh, of which a budget picks one.

Most strategies boil the ranks of all sites down to one number: a multiple of the channels, a
share of the parameters, a loss that each site may cause. The plans along it are a family:
each is faster than the one before it and loses more. A family holds recipes, not plans, so
that only those looked at are made; every family starts with the model as it is and ends with
every site's fastest candidate.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from functools import partial

from onnxcp.plan import Budget, Candidate, Judge, Menu, Plan

Family = Sequence[Callable[[], Plan]]


def best_of(family: Family, menu: Menu, budget: Budget, judge: Judge) -> Plan:
    """The harshest plan within the budget; for a budget of time the gentlest one fast enough.

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
    """Every site's fastest candidate of at least the target rank; a site without is left."""
    return plan_of(
        quickest(c for c in candidates if c.choice.rank >= targets[name])
        for name, candidates in menu.sites.items()
    )


def quickest(candidates: Iterable[Candidate]) -> Candidate | None:
    """The one of least time."""
    return min(candidates, key=lambda c: c.seconds, default=None)


def plan_of(candidates: Iterable[Candidate | None]) -> Plan:
    """The plan that takes these candidates."""
    return Plan({c.site: c.choice for c in candidates if c is not None})
