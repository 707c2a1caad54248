"""One relative kernel error for all sites, bisected against the budget.

Choose it where nothing is known of the data but a budget: it needs few fits and few
judgements, and takes no account of which sites matter more.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from onnxcp.plan import Budget, Candidate, Judge, Menu, Plan

STEPS = 8  # bisections of the common error: the last one moves it by 1/256 of its range


def bisect(menu: Menu, budget: Budget, judge: Judge) -> Plan:
    """One relative kernel error for all sites, as large as the budget allows.

    For an error ε every site takes its fastest candidate of error ≤ ε, or is left alone.
    ε is bisected in (0, 1); the judge decides. Returns the empty plan if nothing is
    within the budget.
    """
    low, high = 0.0, 1.0
    best, judged = Plan(), {Plan().key: True}
    for _ in range(STEPS):
        middle = (low + high) / 2
        plan = at_error(menu, middle)
        if plan.key not in judged:
            judged[plan.key] = judge(plan).within(budget)
        if judged[plan.key]:
            low, best = middle, plan
        else:
            high = middle
    return best


def at_error(menu: Menu, error: float) -> Plan:
    """Every site's fastest candidate whose kernel error is at most `error`."""
    found = _of_all_sites(menu, lambda candidates: _fastest(menu, candidates, error))
    chosen = dict(zip(menu.sites, found, strict=True))
    return Plan({name: c.choice for name, c in chosen.items() if c is not None})


def _of_all_sites(
    menu: Menu, pick: Callable[[Sequence[Candidate]], Candidate | None]
) -> list[Candidate | None]:
    """`pick` for every site, `menu.jobs` of them at once."""
    if menu.jobs == 1:
        return [pick(candidates) for candidates in menu.sites.values()]
    pool = ThreadPoolExecutor(menu.jobs)
    try:
        return list(pool.map(pick, menu.sites.values()))
    finally:  # without a wait: Ctrl-C must not last as long as the fits that were begun
        pool.shutdown(wait=False, cancel_futures=True)


def _fastest(menu: Menu, candidates: Sequence[Candidate], error: float) -> Candidate | None:
    """Per form the least rank that is accurate enough; of those the fastest.

    Error falls with rank within a form, so that a few fits per form find it; of a second
    form only ranks faster than the best of the first are looked at.
    """
    best: Candidate | None = None
    for form in dict.fromkeys(c.choice.form for c in candidates):
        mine = [c for c in candidates if c.choice.form == form]
        if best is not None:
            mine = [c for c in mine if c.seconds < best.seconds]
        mine.sort(key=lambda c: c.choice.rank)
        if best is not None and mine and menu.error(mine[-1]) > error:
            continue  # even the largest rank that is faster still is not accurate enough
        found = _least_rank(menu, mine, error)
        best = best if found is None else found
    return best


def _least_rank(menu: Menu, ranked: Sequence[Candidate], error: float) -> Candidate | None:
    low, high = 0, len(ranked)
    while low < high:
        middle = (low + high) // 2
        if menu.error(ranked[middle]) <= error:
            high = middle
        else:
            low = middle + 1
    return ranked[high] if high < len(ranked) else None
