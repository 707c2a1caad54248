"""One share of the parameters for all sites, then a search by groups of equal sites.

Choose it if the size of the model matters as much as its time. The first part ignores how
sensitive sites are. Source: Song et al. 2021 (Journal of Software 32(11):3468), parameter
estimation.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial

from onnxcp.plan import Budget, Candidate, Judge, Menu, Plan
from onnxcp.search.plan_family import best_of, plan_of, quickest

SHARES = [2 ** (-step / 8) for step in range(64)]  # of the original parameters
MAX_GROUP_EVALUATIONS = 24


def estimate(menu: Menu, budget: Budget, judge: Judge) -> Plan:
    """The smallest share of parameters within the budget, then single groups made faster.

    A time budget needs no evaluation: the largest share that is fast enough.
    """
    family = [partial(at_share, menu, share) for share in SHARES]
    plan = best_of(family, menu, budget, judge)
    return _refined(menu, budget, judge, plan) if budget.seconds is None else plan


def at_share(menu: Menu, share: float) -> Plan:
    """The fastest of each form's largest rank within a share of the original parameters.

    A site without such a rank gets the candidate with the fewest parameters.
    """
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
    """The plan after single groups of sites were made faster within the budget.

    The change that saves most is tried first. A change over the budget is not tried again, since
    the plan only loses more later.
    """
    over_budget: set[object] = set()
    for _ in range(MAX_GROUP_EVALUATIONS):
        moves = [m for m in _moves(menu, plan) if m.key not in over_budget]
        trials = [(Plan({**plan.choices, **move.choices}), move) for move in moves]
        faster = [(t, m) for t, m in trials if menu.seconds(t) < menu.seconds(plan)]
        if not faster:
            break
        trial, move = min(faster, key=lambda pair: menu.seconds(pair[0]))
        if judge(trial).within(budget):
            plan = trial
        else:
            over_budget.add(move.key)
    return plan


def _moves(menu: Menu, plan: Plan) -> Iterator[Plan]:
    """Changes of a group of equal sites: to the next smaller rank, or the next faster candidate.

    Sites are equal if their parameters and output channels are. Each change is a plan of the
    group alone.
    """
    groups: dict[object, list[str]] = defaultdict(list)
    for name in menu.sites:
        original = menu.originals[name]
        groups[original.parameters, original.channels].append(name)
    for group in groups.values():
        current = {name: _chosen(menu, plan, name) for name in group}
        yield plan_of(_smaller(menu.sites[name], c) for name, c in current.items())
        yield plan_of(_faster(menu.sites[name], c) for name, c in current.items())


def _chosen(menu: Menu, plan: Plan, site: str) -> Candidate | None:
    return next((c for c in menu.sites[site] if c.choice == plan.choices.get(site)), None)


def _smaller(candidates: Sequence[Candidate], current: Candidate | None) -> Candidate | None:
    if current is None:
        return None
    form, rank = current.choice.form, current.choice.rank
    smaller = [c for c in candidates if c.choice.form == form and c.choice.rank < rank]
    return max(smaller, key=lambda c: c.choice.rank, default=None)


def _faster(candidates: Sequence[Candidate], current: Candidate | None) -> Candidate | None:
    faster = [c for c in candidates if current is None or c.seconds < current.seconds]
    return max(faster, key=lambda c: c.seconds, default=None)
