"""Rounds of search: a strategy's plan, fitted in full and judged in the end, until it holds.

A strategy judges on the samples of the search. Where the kernels are large it judges drafts of
the fits, and never fits made in sequence: what comes of its plan loses less. The plan is fitted
in full and judged on the samples that are held out: if it loses too much there, the search gets a
smaller limit; if rough fits made it too careful, a larger one.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from onnxcp.fitting.fits import FULL
from onnxcp.forms import DRAFT, Effort
from onnxcp.measure.time_budget import now
from onnxcp.optimization.menu import SMALL
from onnxcp.optimization.outcome import Outcome, Trail
from onnxcp.optimization.scores import Court, TimeIsUp, best
from onnxcp.plan import Budget, Menu, Plan, Score
from onnxcp.results import PlanRecord
from onnxcp.search import STRATEGIES

ROUNDS = 4  # plans judged on the held-out samples, at most
TIGHT = 0.85  # of the budget: below, a rough search was too careful
LOOSER = 8.0  # the limit grows by this much at most
CLOSE = 1.1  # limits that differ by less lead to plans as good
CLEAR = 0.8  # of the limit that should just do: after a plan that lost too much


@dataclass(slots=True, eq=False)
class Search:
    """One search: what it asks and what it knows. `final` fits a plan in full and judges it."""

    menu: Menu
    strategy: str
    court: Court
    effort: Effort
    is_rough: bool  # whether plans in the end are fitted better than those judged
    final: Callable[[Plan], Outcome]
    base: float = 0.0  # what the model loses without any chain, as int8 does
    end: float = math.inf  # of the last plan's judgement, on the clock of `time_budget`
    took: float = 0.0  # seconds of the last one
    tried: int = 0
    is_late: bool = False

    def plan(self, budget: Budget) -> Plan:
        """The strategy's plan; when time is up, the best one judged till then."""

        def judge(plan: Plan) -> Score:
            score = self.court.judge(plan, self.effort)
            return replace(score, loss=score.loss - self.base)

        left = replace(budget, limit=budget.limit - self.base)
        try:
            return STRATEGIES[self.strategy](self.menu, left, judge)
        except TimeIsUp:
            self.is_late = True
            return best(self.court, self.menu, budget)

    def judge(self, plan: Plan) -> Outcome:
        """The outcome of a plan in the end."""
        self.tried += 1
        begun = now()
        found = self.final(plan)
        self.took = now() - begun
        return found

    @property
    def has_time(self) -> bool:
        """Whether another plan could be judged in the end."""
        return now() + self.took <= self.end


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
    trail = Trail(
        judged=tuple(_records(asked)),
        tried=asked.tried,
        is_late=asked.is_late,
        seconds=time.perf_counter() - begun,
        predicted=menu.seconds(found.plan),
    )
    return replace(found, trail=trail)


def _within(asked: Search, nothing: Outcome) -> Outcome:
    """Strategies asked with one limit after the other, till the plan in the end is within the
    budget, and uses it where the search was too careful."""
    budget, limit = nothing.budget, nothing.budget.limit
    good, bad, held = 0.0, math.inf, nothing  # limits, and what the larger good one led to
    missed, seen = nothing, set[str]()
    while asked.tried < ROUNDS and bad > CLOSE * good:
        if asked.tried and not asked.has_time:
            asked.is_late = True
            break
        plan = asked.plan(replace(budget, limit=limit))
        if not plan.choices or plan.sha256 in seen:
            break
        seen.add(plan.sha256)
        outcome = asked.judge(plan)
        assert outcome.accuracy is not None
        if outcome.accuracy.drop > budget.limit:
            bad, missed = limit, outcome
            share = budget.limit / outcome.accuracy.drop
            limit = math.sqrt(good * bad) if good else limit * CLEAR * max(0.25, share)
        else:
            good, held = limit, outcome
            limit *= _looser(asked, outcome, budget)
            if limit <= CLOSE * good:
                break
            limit = limit if bad == math.inf else math.sqrt(good * bad)
    return held if held.plan.choices else missed


def _looser(asked: Search, outcome: Outcome, budget: Budget) -> float:
    """By how much what the search judges moves the outputs more than what comes of it: drafts
    do, and fits that are not made in sequence. 1 where the two are one, or the budget is
    used."""
    assert outcome.staged is not None
    if asked.is_late or not asked.is_rough or not asked.has_time:
        return 1.0
    try:
        judged = asked.court.judge(outcome.plan, asked.effort)
    except TimeIsUp:
        return 1.0
    final = asked.court.of_model(outcome.staged)
    if final.loss > TIGHT * budget.limit or not final.change:
        return 1.0
    return min(LOOSER, max(1.0, judged.change / final.change))


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
