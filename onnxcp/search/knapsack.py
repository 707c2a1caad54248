"""The frontier of predicted loss; a few measurements find the fastest plan within the budget.

Choose it unless there is a reason for another: it spends the loss on the sites where that saves
most time, and evaluates at most 14 plans. The frontier is a family of plans in the predicted loss
L. How the real loss grows with L is unknown, and is fitted to a few measurements (`loss_curve`).
The relative noise of a measurement is least well above the limit, so the first are taken there.
"""

import math
from dataclasses import dataclass, field
from functools import partial

from onnxcp.plan import Budget, Judge, Menu, Plan
from onnxcp.search.frontier import Frontier, frontier
from onnxcp.search.loss_curve import Curve, Point, fit
from onnxcp.search.plan_family import best_of

FIRST_LOSS = 0.2**2  # L of the first plan: a squared change of outputs, relative to their size
MAX_EVALUATIONS = 10  # before plans of much less loss are tried
MAX_FACTOR = 8.0  # in L, from the measured plans to the next one
MIN_SAVING = 0.005  # of the time, that another evaluation must promise
TOLERANCE = 0.03  # of the limit, by which the fitted loss may exceed it
FALLBACK_STEPS = 4  # down to the plan of least loss, if no other is within the budget

# The losses to aim at, in units of the limit:
HIGH_AIMS = (4.0, 2.5)  # at first, until as many measured losses lie between
HIGH_LOW, HIGH_HIGH = 2.0, 6.0  # these
MISS_MARGIN = 0.03  # below the limit, for every loss measured slightly above it
LOWER_AIMS = (0.9, 0.8, 0.6, 0.4)  # if that leads to no new plan


def knapsack(menu: Menu, budget: Budget, judge: Judge) -> Plan:
    """The fastest plan of the frontier whose measured and fitted losses meet the budget.

    A time budget needs no evaluation: the least predicted loss among the plans fast enough.
    """
    plans = frontier(menu)
    if budget.seconds is not None:
        family = [partial(plans.plan, position) for position in range(len(plans))]
        return best_of(family, menu, budget, judge)
    first = 0 if plans.plan(0).choices else 1
    if first == len(plans):
        return Plan()
    best = _Search(plans, menu.total, budget.limit, judge, first).run()
    return Plan() if best is None else plans.plan(best)


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    """The positions of a frontier that were measured, and the choice of the next one."""

    frontier: Frontier
    total: float  # seconds of the unchanged model
    limit: float
    judge: Judge
    first: int  # position of the first plan that changes something
    points: dict[int, Point] = field(default_factory=dict)

    def run(self) -> int | None:
        """The position of the fastest plan within the budget, None if there is none."""
        position: int | None = max(self.frontier.position(FIRST_LOSS), self.first)
        while position is not None and len(self.points) < MAX_EVALUATIONS:
            self._measure(position)
            curve = self._curve()
            position = self._next(curve, self._best(curve))
        best = self._best(self._curve())
        return self._fallback() if best is None else best

    def _measure(self, position: int) -> Point:
        score = self.judge(self.frontier.plan(position))
        loss = math.inf if math.isnan(score.loss) else score.loss
        point = Point(float(self.frontier.loss[position]), loss, score.spread)
        self.points[position] = point
        return point

    def _curve(self) -> Curve:
        return fit(list(self.points.values()), self.limit)

    def _best(self, curve: Curve) -> int | None:
        """The fastest position whose measured and fitted losses are within the limit."""
        fitted_limit = (1 + TOLERANCE) * self.limit
        within = (
            position
            for position, point in self.points.items()
            if point.loss <= self.limit and curve.upper(point.predicted) <= fitted_limit
        )
        return max(within, default=None)

    def _next(self, curve: Curve, best: int | None) -> int | None:
        """The position to measure next; None if no evaluation promises enough."""
        for aim in self._aims(best):
            position = self._nearby(curve.predicted(aim * self.limit))
            is_useful = best is None or aim > 1 or self._saves(position, best)
            if position not in self.points and is_useful:
                return position
        return None

    def _aims(self, best: int | None) -> tuple[float, ...]:
        """The losses to aim at, in limits, in order of preference."""
        losses = [point.loss / self.limit for point in self.points.values() if self.limit]
        high = sum(HIGH_LOW <= loss <= HIGH_HIGH for loss in losses)
        missed = sum(1 < loss < HIGH_LOW for loss in losses)
        first = HIGH_AIMS[high : high + 1] if len(self.points) < MAX_EVALUATIONS // 2 else ()
        if best is not None:
            return (*first, 1.0)
        return (*first, 1 - MISS_MARGIN * missed, *LOWER_AIMS)

    def _nearby(self, predicted: float) -> int:
        """The position of a predicted loss, at most `MAX_FACTOR` from the measured ones."""
        at, low, high = self.frontier.position, min(self.points), max(self.points)
        start = min(at(self.points[low].predicted / MAX_FACTOR), low - 1)
        stop = max(at(self.points[high].predicted * MAX_FACTOR), high + 1)
        start, stop = max(start, self.first), min(stop, len(self.frontier) - 1)
        return min(max(at(predicted), start), stop)

    def _saves(self, position: int, best: int) -> bool:
        """Whether a position is faster than the best one by at least `MIN_SAVING`."""
        seconds, best_seconds = self.total - self.frontier.saved[[position, best]]
        return bool(seconds < (1 - MIN_SAVING) * best_seconds)

    def _fallback(self) -> int | None:
        """The first position within the limit, in equal ratios from the measured ones down."""
        below = min(self.points) - self.first
        steps = range(1, FALLBACK_STEPS + 1)
        ratios = [1 - step / FALLBACK_STEPS for step in steps] if below else []
        positions = [self.first + round(math.pow(below, ratio)) - 1 for ratio in ratios]
        within = (p for p in dict.fromkeys(positions) if self._measure(p).loss <= self.limit)
        return next(within, None)
