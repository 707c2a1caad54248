"""The loss that every site may cause alone, bisected against the budget.

Choose it where the predicted losses are not to be trusted and time is no matter: every site's
ranks are judged by the real network, some ten times. Source: Phan et al. 2020
(arXiv:2008.05441): the smallest rank of a site whose accuracy drop stays within ε, the rest
of the network intact.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cache, partial

from onnxcp.plan import Budget, Candidate, Judge, Menu, Plan
from onnxcp.search.plan_family import best_of, plan_of, quickest

STEPS = 31  # losses tried, each 2^¼ times the one before: 5 bisections
RATIO = 2**0.25

Loss = Callable[[Candidate], float]


def bisect(menu: Menu, budget: Budget, judge: Judge) -> Plan:
    """Every site at the smallest rank that alone loses at most ε, as large as the budget allows.

    Loss is taken to fall with rank within a form.
    """

    @cache
    def alone(candidate: Candidate) -> float:
        return judge(plan_of([candidate])).loss

    most = budget.limit if budget.seconds is None else _most(menu, alone)
    losses = [most / RATIO**step for step in reversed(range(STEPS))]
    family = [partial(at_loss, menu, alone, loss) for loss in losses]
    return best_of(family, menu, budget, judge)


def _most(menu: Menu, alone: Loss) -> float:
    """What the worst of the sites loses at its fastest."""
    ends = (quickest(candidates) for candidates in menu.sites.values())
    losses = (alone(end) for end in ends if end is not None)
    return max((loss for loss in losses if math.isfinite(loss)), default=0.0)


def at_loss(menu: Menu, alone: Loss, most: float) -> Plan:
    """Every site's fastest candidate that alone loses at most so much."""
    return plan_of(_fastest(candidates, alone, most) for candidates in menu.sites.values())


def _fastest(candidates: Sequence[Candidate], alone: Loss, most: float) -> Candidate | None:
    """Per form the least rank that loses little enough; of those the fastest.

    Of a second form only ranks faster than the best of the first are looked at.
    """
    best: Candidate | None = None
    for form in dict.fromkeys(c.choice.form for c in candidates):
        mine = [c for c in candidates if c.choice.form == form]
        if best is not None:
            mine = [c for c in mine if c.seconds < best.seconds]
        mine.sort(key=lambda c: c.choice.rank)
        if best is not None and mine and alone(mine[-1]) > most:
            continue  # even the largest rank that is faster still loses too much
        found = _least_rank(mine, alone, most)
        best = best if found is None else found
    return best


def _least_rank(ranked: Sequence[Candidate], alone: Loss, most: float) -> Candidate | None:
    found = bisect_left(ranked, True, key=lambda candidate: alone(candidate) <= most)
    return ranked[found] if found < len(ranked) else None
