"""Rounds of search: a strategy's plan, fitted in full and judged in the end, until it holds.

A strategy judges on the samples of the search. Where the kernels are large it judges drafts of
the fits; full fits lose less. The plan it finds is fitted in full and judged on the samples
that are held out: if it loses too much there, the search gets a smaller limit; if drafts made
it too careful, a larger one, once.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from onnxcp.court import Court, TimeIsUp, best
from onnxcp.fitting import FULL
from onnxcp.forms import DRAFT, Effort
from onnxcp.menus import SMALL
from onnxcp.outcome import Outcome, Trail
from onnxcp.plan import Budget, Menu, Plan, Score
from onnxcp.report.record import PlanRecord
from onnxcp.search import STRATEGIES

ROUNDS = 4  # plans judged on the held-out samples, at most
TIGHT = 0.85  # of the budget: below, drafts were too careful
LOOSER = 1.6  # the limit grows by this much at most
CLEAR = 0.8  # of the limit that should just do: after a plan that lost too much


@dataclass(slots=True, eq=False)
class Search:
    """One search: what it asks and what it knows. `final` fits a plan in full and judges it."""

    menu: Menu
    strategy: str
    court: Court
    effort: Effort
    final: Callable[[Plan], Outcome]
    tried: int = 0
    is_late: bool = False

    def plan(self, budget: Budget) -> Plan:
        """The strategy's plan; when time is up, the best one judged till then."""

        def judge(plan: Plan) -> Score:
            return self.court.judge(plan, self.effort)

        try:
            return STRATEGIES[self.strategy](self.menu, budget, judge)
        except TimeIsUp:
            self.is_late = True
            return best(self.court, self.menu, budget)

    def judge(self, plan: Plan) -> Outcome:
        """The outcome of a plan in the end."""
        self.tried += 1
        return self.final(plan)


def effort_for(menu: Menu) -> Effort:
    """Of the fits that a search judges: full ones where the kernels are small."""
    size = sum(original.parameters for original in menu.originals.values())
    return FULL if size <= SMALL else DRAFT


def search(asked: Search, nothing: Outcome) -> Outcome:
    """The outcome of the fastest plan that stays within the budget in the end, or, for a budget
    of time, of the one that loses least; `nothing` where there is none."""
    begun, menu = time.perf_counter(), asked.menu
    if nothing.budget.seconds is None:
        found = _within(asked, nothing)
    else:
        plan = asked.plan(nothing.budget)
        found = asked.judge(plan) if plan.choices else nothing
    asked.court.deadline = math.inf
    trail = Trail(
        judged=tuple(_records(asked)),
        tried=asked.tried,
        is_late=asked.is_late,
        seconds=time.perf_counter() - begun,
        predicted=menu.seconds(found.plan),
    )
    return replace(found, trail=trail)


def _within(asked: Search, nothing: Outcome) -> Outcome:
    budget, limit = nothing.budget, nothing.budget.limit
    found, seen = nothing, set[str]()
    while asked.tried < ROUNDS:
        plan = asked.plan(replace(budget, limit=limit))
        if not plan.choices or plan.sha256 in seen:
            break
        seen.add(plan.sha256)
        outcome = asked.judge(plan)
        assert outcome.accuracy is not None
        drop = outcome.accuracy.drop
        if drop > budget.limit:
            if found.accuracy is not None and found.accuracy.drop <= budget.limit:
                break
            found = outcome
            limit *= CLEAR * max(0.25, budget.limit / drop)
        else:
            found = outcome
            looser = _looser(asked, plan, budget)
            if asked.tried > 1 or looser is None:
                break
            limit *= looser
    return found


def _looser(asked: Search, plan: Plan, budget: Budget) -> float | None:
    """By how much drafts overstate what a plan loses; None where they were not what was
    judged, or the plan uses its budget anyway."""
    if asked.effort != DRAFT or asked.is_late:
        return None
    try:
        draft, full = (asked.court.judge(plan, effort) for effort in (DRAFT, FULL))
    except TimeIsUp:
        return None
    if full.loss > TIGHT * budget.limit or not full.change:
        return None
    return min(LOOSER, max(1.0, draft.change / full.change))


def _records(asked: Search) -> list[PlanRecord]:
    return [
        PlanRecord(
            layers=len(judged.plan.choices),
            ms=1e3 * asked.menu.seconds(judged.plan),
            predicted=predicted(asked.menu, judged.plan),
            change=judged.score.change,
            loss=judged.score.loss,
        )
        for judged in asked.court.trail.values()
    ]


def predicted(menu: Menu, plan: Plan) -> float:
    """The predicted squared change of the output."""
    chosen = {(c.site, c.choice): c for found in menu.sites.values() for c in found}
    return sum(menu.loss(chosen[n, choice]) for n, choice in plan.choices.items())
