"""The fastest plan that meets the budget after training.

Short trainings steer: a curve goes through what they leave of plans on the knapsack's frontier,
on the samples of the search. What a long training will leave is a share of that, at first by
experience, then by what long ones of this run left. Where that meets the budget a plan gets a
long training, and is judged on the samples held out.
"""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from onnxcp.measure.time_budget import now
from onnxcp.measure.timing import speedup
from onnxcp.optimization.outcome import Outcome, Recovered
from onnxcp.optimization.rounds import Search, predicted
from onnxcp.optimization.training import School
from onnxcp.plan import Plan, Score
from onnxcp.results import TrialRecord
from onnxcp.search.frontier import Frontier, frontier
from onnxcp.search.loss_curve import Curve, Point, fit, pooled

SHORT = 8  # a short training has this part of a long one's epochs
GAIN = 0.6  # of what a short training leaves, what a long one does: a heuristic
AIMS = (2.5, 1.0)  # limits that short trainings aim at, after the first
FIRST = 4.0  # predicted loss of the first plan, over that of the plan without training
FACTOR = 8.0  # in predicted loss, at most, from what is measured to what is tried
LONGS = 3  # long trainings, at most
WORTH = 0.04  # of the time: what a long training must promise to save
LEFT = 0.7  # of the budget: a plan that used less leads to one predicted to lose more, by up to
STEP = 1.6  # this factor


@dataclass(slots=True, eq=False)
class Recovery:
    """One search with trainings. `timed` times an outcome; `deadline` is on the clock of
    `time_budget`. Scores are by position of the frontier."""

    school: School
    asked: Search
    timed: Callable[[Outcome], Outcome]
    limit: float
    deadline: float = math.inf
    trials: list[TrialRecord] = field(default_factory=list)
    _shorts: dict[int, Score] = field(default_factory=dict)
    _longs: dict[int, Score] = field(default_factory=dict)

    def best(self, without: Outcome) -> Outcome:
        """The fastest outcome that is within the budget after training; where none is faster,
        the one without training."""
        begun, plans = time.perf_counter(), frontier(self.asked.menu)
        start = plans.position(predicted(self.asked.menu, without.plan))
        if start + 1 < len(plans):
            self._steer(plans, start)
        held = self._finish(plans, start, without)
        known = held.recovered or Recovered()
        seconds = time.perf_counter() - begun
        recovered = replace(known, trials=tuple(self.trials), without=without, seconds=seconds)
        return replace(held, recovered=recovered)

    def _steer(self, plans: Frontier, start: int) -> None:
        """Short trainings, the last of them of plans that should just meet the budget."""
        least = float(plans.loss[max(start, 1)])
        position: int = max(start + 1, plans.position(FIRST * least))
        for aim in (*AIMS, None):
            if position in self._shorts or now() > self.deadline:
                return
            self._short(plans, position)
            if aim is not None:
                wanted = self._curve(plans).predicted(aim * self.limit)
                known = [float(plans.loss[at]) for at in self._shorts]
                wanted = min(max(wanted, min(known) / FACTOR), max(known) * FACTOR)
                position = max(start + 1, plans.position(wanted))

    def _finish(self, plans: Frontier, start: int, without: Outcome) -> Outcome:
        """Long trainings, until the curve through all of them promises nothing faster."""
        held, low, high, left = without, start, len(plans), self.limit
        for _ in range(LONGS):
            position = self._following(plans, low, high, left)
            if position is None or now() > self.deadline:
                break
            found = self._long(plans, position)
            assert found.accuracy is not None
            if found.accuracy.drop > self.limit:
                high = position
            else:
                low, left = position, found.accuracy.drop
                held = found if _is_faster(found, held) else held
        return held

    def _following(self, plans: Frontier, low: int, high: int, drop: float) -> int | None:
        """The position between two that should just meet the budget; None where that would not
        be worth a training. The curve, through few samples, is cautious: what the plan at `low`
        lost in the end, its `drop`, counts too where it is little."""
        if not self._shorts:
            return None
        wanted = self._curve(plans).predicted(self.limit)
        used = max(drop / self.limit, 1 / STEP) if self.limit else 1.0
        if used < LEFT:
            wanted = max(wanted, float(plans.loss[low]) / used)
        position = plans.position(wanted)
        if position >= high:  # that is too hopeful
            middle = math.sqrt(float(plans.loss[high]) * max(float(plans.loss[low]), 1e-12))
            position = plans.position(middle)
        total = self.asked.menu.total
        saves = low < position and bool(
            total - plans.saved[position] < (1 - WORTH) * (total - plans.saved[low])
        )
        return position if saves else None

    def _curve(self, plans: Frontier) -> Curve:
        """What long trainings leave, by what is predicted without."""
        price = pooled([*self._shorts.values(), *self._longs.values()])
        points = [
            Point(float(plans.loss[at]), share * max(score.loss, 0.0), share * score.spread)
            if price is None
            else Point(float(plans.loss[at]), share * price.scale * score.change, 0.0)
            for share, known in ((self._gain(), self._shorts), (1.0, self._longs))
            for at, score in known.items()
        ]
        found = fit(points, self.limit)
        return found if price is None else replace(found, relative_error=price.relative_error)

    def _gain(self) -> float:
        """Of what a short training leaves, what a long one of the same plan does."""
        both = [at for at in self._longs if at in self._shorts and self._shorts[at].change > 0]
        if not both:
            return GAIN
        return min(1.0, self._longs[both[-1]].change / self._shorts[both[-1]].change)

    def _short(self, plans: Frontier, position: int) -> None:
        plan, run = plans.plan(position), self.school.run
        epochs = -(-self.school.recipe.epochs // SHORT)
        path, _ = self.school.trained(run.builder.build(plan, self.asked.effort), epochs)
        self._shorts[position] = self._noted(plan, epochs, self.asked.court.of_model(path))
        shutil.rmtree(path.parent, ignore_errors=True)  # of several, and a model may be large

    def _long(self, plans: Frontier, position: int) -> Outcome:
        plan = plans.plan(position)
        found = self.school.finished(self.asked.final(plan), self.asked.court.referee)
        assert found.staged is not None
        score = self.asked.court.of_model(found.staged)
        self._longs[position] = self._noted(plan, self.school.recipe.epochs, score)
        return self.timed(found)

    def _noted(self, plan: Plan, epochs: int, score: Score) -> Score:
        ms = 1e3 * self.asked.menu.seconds(plan)
        self.trials.append(TrialRecord(len(plan.choices), ms, epochs, score.loss, score.change))
        return score


def _is_faster(found: Outcome, held: Outcome) -> bool:
    """By measurement, where both were timed."""
    if found.timings is None or held.timings is None:
        return True
    return speedup(*found.timings).ratio > speedup(*held.timings).ratio
