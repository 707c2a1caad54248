"""The search with trainings, on arithmetic: what is trained how long, and what it comes to."""

import math
import time
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
from menus import small_menu

from onnxcp.measure.timing import Timing
from onnxcp.optimization.after_training import LONGS, SHORT, WORTH, Recovery
from onnxcp.optimization.outcome import Outcome, Recovered
from onnxcp.optimization.rounds import predicted
from onnxcp.plan import Budget, Score
from onnxcp.results import AccuracyRecord
from onnxcp.search.frontier import frontier

ERRORS = {f"conv{n}": 1.0 + 0.3 * n for n in range(8)}
MENU = small_menu(ERRORS, ranks=tuple(range(4, 64, 4)))
EPOCHS, LIMIT = 16, 0.01


class Made(tuple):
    """A model that is a plan and how long it was trained; its folder can go."""

    parent = "no such folder"


@dataclass
class Law:
    """Plans lose `fitted` times what is predicted as fitted, `short` and `long` times that
    after training; the samples held out see `beyond` times as much. Noise is of the search."""

    fitted: float = 1.0
    short: float = 0.3
    long: float = 0.18
    beyond: float = 1.0
    noise: float = 0.0
    trained: list = field(default_factory=list)
    recipe: object = field(default_factory=lambda: SimpleNamespace(epochs=EPOCHS))
    run: object = field(
        default_factory=lambda: SimpleNamespace(
            builder=SimpleNamespace(build=lambda plan, effort: plan)
        )
    )

    def loss(self, plan, epochs):
        left = {0: 1.0, EPOCHS: self.long}.get(epochs, self.short)
        return left * self.fitted * predicted(MENU, plan)

    def trained_as(self, plan, epochs):
        self.trained.append((plan, epochs))
        return (plan, epochs)

    def school(self):
        return SimpleNamespace(
            recipe=self.recipe,
            run=self.run,
            trained=lambda staged, epochs: (Made(self.trained_as(staged, epochs)), None),
            finished=self.finished,
        )

    def finished(self, fitted, referee):
        staged = self.trained_as(fitted.plan, EPOCHS)
        accuracy = record(self.beyond * self.loss(fitted.plan, EPOCHS))
        recovered = Recovered(before=fitted.accuracy)
        return replace(fitted, staged=staged, accuracy=accuracy, recovered=recovered)

    def of_model(self, model):
        plan, epochs = model
        loss = self.loss(plan, epochs)
        rng = np.random.default_rng(len(self.trained))
        return Score(loss + self.noise * rng.standard_normal(), self.noise, loss)

    def final(self, plan):
        accuracy = record(self.beyond * self.loss(plan, 0))
        return Outcome(plan, {}, Budget(LIMIT, "loss"), accuracy=accuracy, staged=(plan, 0))

    @property
    def longs(self):
        return [plan for plan, epochs in self.trained if epochs == EPOCHS]

    @property
    def shorts(self):
        return [plan for plan, epochs in self.trained if epochs == EPOCHS // SHORT]


def record(drop):
    return AccuracyRecord("top1", 1.0, 1 - drop, drop, (0.0, 1.0), 100, LIMIT, "made", True)


def timed(outcome):
    def lasting(seconds):
        return Timing(np.full(20, seconds))

    times = (lasting(MENU.total), lasting(MENU.seconds(outcome.plan)))
    return replace(outcome, timings=times)


def without(law):
    """The fastest plan of the frontier that is within the limit as fitted."""
    plans = frontier(MENU)
    good = [plans.plan(at) for at in range(len(plans)) if law.loss(plans.plan(at), 0) <= LIMIT]
    return timed(law.final(good[-1]))


def best(law, deadline=math.inf):
    court = SimpleNamespace(of_model=law.of_model, referee=None)
    asked = SimpleNamespace(menu=MENU, court=court, effort=None, final=law.final)
    subject = Recovery(law.school(), asked, timed, LIMIT, deadline)
    return subject.best(without(law))


def bound(law):
    """Seconds of the fastest plan that is within the limit after a long training."""
    plans = frontier(MENU)
    found = [plans.plan(at) for at in range(len(plans))]
    return MENU.seconds([p for p in found if law.beyond * law.loss(p, EPOCHS) <= LIMIT][-1])


@pytest.mark.parametrize("long", [0.27, 0.18, 0.12, 0.06])
def test_the_fastest_plan_that_training_brings_within_the_budget_is_found(long):
    law = Law(long=long)
    found = best(law)
    assert found.accuracy.drop <= LIMIT
    assert MENU.seconds(found.plan) <= bound(law) / (1 - WORTH)
    assert len(law.shorts) <= 4
    assert len(law.longs) <= LONGS


def test_what_was_tried_and_what_there_would_be_without_is_told():
    law = Law()
    found = best(law).recovered
    assert [t.epochs for t in found.trials] == [epochs for _, epochs in law.trained]
    assert found.without.plan == without(law).plan
    assert found.before.drop > LIMIT


@pytest.mark.parametrize("noise", [0.001, 0.004])
def test_noise_of_the_samples_leads_to_a_plan_that_holds(noise):
    law = Law(noise=noise)
    found = best(law)
    assert found.accuracy.drop <= LIMIT
    assert MENU.seconds(found.plan) < 0.97 * MENU.seconds(without(law).plan)


def test_a_plan_that_does_not_hold_on_other_samples_leads_to_a_slower_one():
    law = Law(beyond=1.5)
    found = best(law)
    assert len(law.longs) > 1
    assert found.accuracy.drop <= LIMIT
    assert MENU.seconds(found.plan) < MENU.seconds(without(law).plan)


def test_training_that_is_worth_nothing_leaves_what_there_was():
    law = Law(short=1.0, long=1.0)
    found = best(law)
    assert found.plan == without(law).plan
    assert found.recovered.before is None
    assert found.recovered.trials


def test_a_deadline_ends_the_short_trainings():
    law = Law()
    best(law, deadline=time.monotonic() - 1)
    assert law.trained == []
