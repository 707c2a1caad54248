"""One limit ε on the loss that every site causes alone, found by bisection.

Choose it if predicted losses mislead and search time does not matter: each site's ranks are
evaluated in the real network, about ten times. Source: Phan et al. 2020 (arXiv:2008.05441): the
smallest rank of a site whose accuracy drop stays within ε while the other sites are unchanged.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cache, partial

from onnxcp.plan import Budget, Candidate, Judge, Menu, Plan
from onnxcp.search.plan_family import best_of, plan_of, quickest

STEPS = 31  # values of ε, each 2^¼ times the one before: 5 bisection steps
RATIO = 2**0.25

Loss = Callable[[Candidate], float]


def bisect(menu: Menu, budget: Budget, judge: Judge) -> Plan:
    """Every site at the smallest rank that alone loses at most ε; ε is as large as possible.

    Assumes that the loss falls with the rank within a form.
    """

    @cache
    def alone(candidate: Candidate) -> float:
        return judge(plan_of([candidate])).loss

    largest = budget.limit if budget.seconds is None else _largest_loss(menu, alone)
    losses = [largest / RATIO**step for step in reversed(range(STEPS))]
    family = [partial(at_loss, menu, alone, loss) for loss in losses]
    return best_of(family, menu, budget, judge)


def _largest_loss(menu: Menu, alone: Loss) -> float:
    """The largest finite loss that a site causes alone with its fastest candidate."""
    ends = (quickest(candidates) for candidates in menu.sites.values())
    losses = (alone(end) for end in ends if end is not None)
    return max((loss for loss in losses if math.isfinite(loss)), default=0.0)


def at_loss(menu: Menu, alone: Loss, limit: float) -> Plan:
    """Every site's fastest candidate that alone loses at most `limit`."""
    return plan_of(_fastest(candidates, alone, limit) for candidates in menu.sites.values())


def _fastest(candidates: Sequence[Candidate], alone: Loss, limit: float) -> Candidate | None:
    """The fastest of each form's smallest rank within the limit.

    For a second form, only ranks faster than the best so far are evaluated.
    """
    best: Candidate | None = None
    for form in dict.fromkeys(c.choice.form for c in candidates):
        of_form = [c for c in candidates if c.choice.form == form]
        if best is not None:
            of_form = [c for c in of_form if c.seconds < best.seconds]
        of_form.sort(key=lambda c: c.choice.rank)
        if best is not None and of_form and alone(of_form[-1]) > limit:
            continue  # even the largest faster rank loses too much
        least = _least_rank(of_form, alone, limit)
        best = best if least is None else least
    return best


def _least_rank(ranked: Sequence[Candidate], alone: Loss, limit: float) -> Candidate | None:
    position = bisect_left(ranked, True, key=lambda candidate: alone(candidate) <= limit)
    return ranked[position] if position < len(ranked) else None
