"""One share of the parameters for all sites, then a search around it by groups of sites.

Choose it where what a model stores matters as much as its time: it takes a dozen judgements
and knows nothing of how sensitive sites are until the search by groups. Source: Song et al.
2021 (Journal of Software 32(11):3468), parameter estimation.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial

from onnxcp.plan import Budget, Candidate, Judge, Menu, Plan
from onnxcp.search.plan_family import best_of, plan_of, quickest

SHARES = [2 ** (-step / 8) for step in range(64)]  # of the original's parameters
TRIES = 24  # judgements of the search by groups


def estimate(menu: Menu, budget: Budget, judge: Judge) -> Plan:
    """One share of parameters bisected against the budget, then faster groups one by one.

    A budget of time takes no judgement: the largest share that is fast enough.
    """
    family = [partial(at_share, menu, share) for share in SHARES]
    found = best_of(family, menu, budget, judge)
    return _refined(menu, budget, judge, found) if budget.seconds is None else found


def at_share(menu: Menu, share: float) -> Plan:
    """Per form the largest rank within a share of the original's parameters; of those the
    fastest. Where no rank is within it, the candidate that stores least."""
    return plan_of(
        _within(candidates, share * menu.originals[name].parameters)
        for name, candidates in menu.sites.items()
    )


def _within(candidates: Sequence[Candidate], parameters: float) -> Candidate | None:
    largest: dict[str, Candidate] = {}  # by form
    for candidate in sorted(candidates, key=lambda c: c.choice.rank):
        if candidate.parameters <= parameters:
            largest[candidate.choice.form] = candidate
    return quickest(largest.values()) or min(candidates, key=lambda c: c.parameters, default=None)


def _refined(menu: Menu, budget: Budget, judge: Judge, plan: Plan) -> Plan:
    """The plan after single groups of sites were made faster while the budget held.

    The change that saves most is tried first. One that was refused is not tried again: the
    plan only gets harsher.
    """
    refused: set[object] = set()
    for _ in range(TRIES):
        moves = [m for m in _moves(menu, plan) if m.key not in refused]
        trials = [(Plan({**plan.choices, **move.choices}), move) for move in moves]
        faster = [(t, m) for t, m in trials if menu.seconds(t) < menu.seconds(plan)]
        if not faster:
            break
        trial, move = min(faster, key=lambda pair: menu.seconds(pair[0]))
        if judge(trial).within(budget):
            plan = trial
        else:
            refused.add(move.key)
    return plan


def _moves(menu: Menu, plan: Plan) -> Iterator[Plan]:
    """For every group of equal sites: all at the next smaller rank, or all at the next faster
    candidate of any form."""
    groups: dict[object, list[str]] = defaultdict(list)
    for name in menu.sites:
        original = menu.originals[name]
        groups[original.parameters, original.channels].append(name)
    for group in groups.values():
        now = {name: _chosen(menu, plan, name) for name in group}
        yield plan_of(_smaller(menu.sites[name], c) for name, c in now.items())
        yield plan_of(_faster(menu.sites[name], c) for name, c in now.items())


def _chosen(menu: Menu, plan: Plan, site: str) -> Candidate | None:
    return next((c for c in menu.sites[site] if c.choice == plan.choices.get(site)), None)


def _smaller(candidates: Sequence[Candidate], now: Candidate | None) -> Candidate | None:
    if now is None:
        return None
    form, rank = now.choice.form, now.choice.rank
    below = [c for c in candidates if c.choice.form == form and c.choice.rank < rank]
    return max(below, key=lambda c: c.choice.rank, default=None)


def _faster(candidates: Sequence[Candidate], now: Candidate | None) -> Candidate | None:
    below = [c for c in candidates if now is None or c.seconds < now.seconds]
    return max(below, key=lambda c: c.seconds, default=None)
