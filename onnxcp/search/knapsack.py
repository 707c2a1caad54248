"""The frontier of predicted loss, measured and recalibrated until the budget is met and tight.

Choose it unless there is a reason for another: it shares the loss out among the sites where
that saves most time, and takes at most 14 judgements. The frontier is a family in the
predicted loss L; what is unknown is how the real loss grows with L, and a few measurements
tell (`curve`). Measurements are noisy, but least, relative to their size, some way above the
limit, so the first are spent there.
"""

import math
from dataclasses import dataclass, field
from functools import partial

from onnxcp.plan import Budget, Judge, Menu, Plan
from onnxcp.search.frontier import Frontier, frontier
from onnxcp.search.loss_curve import Curve, Point, fit
from onnxcp.search.plan_family import best_of

START = 0.2**2  # L of the first plan: L is a squared change of outputs, relative to their size
MOST = 10  # judgements, before plans far gentler are tried
FACTOR = 8.0  # in L, at most, from what is measured to what is tried
WORTH = 0.005  # of the time: what another judgement must promise to save
TOLERANCE = 0.03  # of the limit, by which the fitted loss may be above it
STEPS = 4  # down to the gentlest plan, where nothing else was within the budget

# What loss is aimed at, in limits:
HARSH = (4.0, 2.5)  # at first, until as many losses lie between
HARSH_LOW, HARSH_HIGH = 2.0, 6.0  # these
MISSED = 0.03  # below the limit for every loss measured little above it
LOWER = (0.9, 0.8, 0.6, 0.4)  # where that leads to no new plan


def knapsack(menu: Menu, budget: Budget, judge: Judge) -> Plan:
    """The fastest plan of the frontier whose measured loss, and fitted loss, meet the budget.

    A budget of time takes no judgement: the least predicted loss of the plans fast enough.
    """
    found = frontier(menu)
    if budget.seconds is not None:
        family = [partial(found.plan, position) for position in range(len(found))]
        return best_of(family, menu, budget, judge)
    gentlest = 0 if found.plan(0).choices else 1
    if gentlest == len(found):
        return Plan()
    best = _Search(found, menu.total, budget.limit, judge, gentlest).run()
    return Plan() if best is None else found.plan(best)


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    """Positions of a frontier with what was measured there."""

    frontier: Frontier
    total: float  # seconds of the model as it is
    limit: float
    judge: Judge
    gentlest: int  # position of the first plan that changes something
    points: dict[int, Point] = field(default_factory=dict)

    def run(self) -> int | None:
        """The position of the plan that the budget asks for, if there is one."""
        following: int | None = max(self.frontier.position(START), self.gentlest)
        while following is not None and len(self.points) < MOST:
            self._measure(following)
            curve = self._curve()
            following = self._following(curve, self._best(curve))
        best = self._best(self._curve())
        return self._far_gentler() if best is None else best

    def _measure(self, position: int) -> Point:
        score = self.judge(self.frontier.plan(position))
        loss = math.inf if math.isnan(score.loss) else score.loss
        point = Point(float(self.frontier.loss[position]), loss, score.spread)
        self.points[position] = point
        return point

    def _curve(self) -> Curve:
        return fit(list(self.points.values()), self.limit)

    def _best(self, curve: Curve) -> int | None:
        """The harshest position that is within the limit both as measured and as fitted."""
        most = (1 + TOLERANCE) * self.limit
        within = (
            position
            for position, point in self.points.items()
            if point.loss <= self.limit and curve.cautious(point.predicted) <= most
        )
        return max(within, default=None)

    def _following(self, curve: Curve, best: int | None) -> int | None:
        """The position to measure next; None where it would not be worth it."""
        for aim in self._aims(best):
            position = self._reached(curve.predicted(aim * self.limit))
            is_worth = best is None or aim > 1 or self._saves(position, best)
            if position not in self.points and is_worth:
                return position
        return None

    def _aims(self, best: int | None) -> tuple[float, ...]:
        """The losses to aim at, in limits, until one leads to a plan that is not measured."""
        losses = [point.loss / self.limit for point in self.points.values() if self.limit]
        harsh = sum(HARSH_LOW <= loss <= HARSH_HIGH for loss in losses)
        missed = sum(1 < loss < HARSH_LOW for loss in losses)
        first = HARSH[harsh : harsh + 1] if len(self.points) < MOST // 2 else ()
        return (*first, 1.0) if best is not None else (*first, 1 - MISSED * missed, *LOWER)

    def _reached(self, predicted: float) -> int:
        """The position of a predicted loss, not too far from what is measured."""
        at, low, high = self.frontier.position, min(self.points), max(self.points)
        least = min(at(self.points[low].predicted / FACTOR), low - 1)
        most = max(at(self.points[high].predicted * FACTOR), high + 1)
        least, most = max(least, self.gentlest), min(most, len(self.frontier) - 1)
        return min(max(at(predicted), least), most)

    def _saves(self, position: int, best: int) -> bool:
        """Whether a position is so much faster than the best that it is worth a judgement."""
        seconds, least = self.total - self.frontier.saved[[position, best]]
        return bool(seconds < (1 - WORTH) * least)

    def _far_gentler(self) -> int | None:
        """The first position within the limit of some that lie in equal ratios below all
        measured, the gentlest the last."""
        below = min(self.points) - self.gentlest
        ratios = [1 - step / STEPS for step in range(1, STEPS + 1)] if below else []
        positions = [self.gentlest + round(math.pow(below, ratio)) - 1 for ratio in ratios]
        tried = (p for p in dict.fromkeys(positions) if self._measure(p).loss <= self.limit)
        return next(tried, None)
