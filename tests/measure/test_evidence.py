"""What samples say of a budget."""

import math

import numpy as np
import pytest

from onnxcp.data.roles import Sources, prepare
from onnxcp.graph.input_specs import TensorSpec
from onnxcp.measure.accuracy import drop_interval
from onnxcp.measure.evaluator import Limits, Referee
from onnxcp.measure.evidence import Evidence, doubt, is_coarse, weigh, widened
from onnxcp.results import AccuracyRecord


def record(drop, interval, budget=0.01, samples=427):
    return AccuracyRecord("top1", 0.76, 0.76 - drop, drop, interval, samples, budget, "d", True)


CASES = {
    "narrow and within": ((0.002, (-0.001, 0.005)), Evidence.HOLDS),
    "wide and within": ((-0.05, (-0.1, 0.0)), Evidence.HOLDS),
    "narrow and across": ((0.009, (0.008, 0.011)), Evidence.OPEN),
    "wide and across": ((0.0025, (-0.024, 0.029)), Evidence.OPEN),
    "beyond": ((0.05, (0.02, 0.08)), Evidence.BROKEN),
}


@pytest.mark.parametrize("case", CASES)
def test_where_an_interval_lies_counts_and_not_how_wide_it_is(case):
    measured, wanted = CASES[case]
    found = weigh(record(*measured))
    assert found.evidence is wanted
    assert (doubt(record(*measured), found, plans=1, share=0.5) is None) is (
        wanted is Evidence.HOLDS
    )


def test_nothing_is_weighed_without_a_budget_or_an_interval():
    assert weigh(record(0.0, (-0.1, 0.1), budget=None)) is None
    assert weigh(record(0.0, None)) is None


def test_several_plans_widen_the_interval_as_bonferroni_has_it():
    low, high = widened((-1.0, 1.0), 4)
    assert (low, high) == (pytest.approx(-2.4977 / 1.96, rel=1e-4), pytest.approx(-low))
    assert widened((-1.0, 3.0), 1) == pytest.approx((-1.0, 3.0))


def test_a_plan_that_passed_by_luck_among_several_is_not_proven():
    measured = record(0.0, (-0.009, 0.009))
    assert weigh(measured, plans=1).evidence is Evidence.HOLDS
    assert weigh(measured, plans=4).evidence is Evidence.OPEN


def test_as_many_samples_as_said_decide():
    """Of as many samples that differ as these do the interval reaches as far as the budget."""
    rng = np.random.default_rng(0)
    before = (rng.random(200_000) < 0.76).astype(float)
    flipped = rng.random(200_000) < 0.04
    after = _swapped(before, flipped, rng)
    part = slice(0, 427)
    drop = float((before[part] - after[part]).mean())
    measured = record(drop, drop_interval(before[part], after[part]), budget=drop + 0.006)
    enough = weigh(measured).enough
    assert 427 < enough < 20_000
    low, high = drop_interval(before[:enough], after[:enough])
    assert (high - low) / 2 == pytest.approx(0.006, rel=0.35)


def _swapped(before, flipped, rng):
    """As many become right as wrong."""
    random = (rng.random(len(before)) < 0.5).astype(float)
    return np.where(flipped, random, before)


def test_a_drop_at_the_budget_is_said_to_need_more_than_anybody_has():
    measured = record(0.01, (-0.01, 0.03))
    found = weigh(measured)
    assert found.enough is None
    assert "too near the budget" in doubt(measured, found, plans=1, share=0.5)


def test_one_sample_of_a_continuous_metric_decides_nothing():
    measured = record(0.0, drop_interval(np.array([0.3]), np.array([0.2])), samples=1)
    found = weigh(measured, plans=3)
    assert found.evidence is Evidence.OPEN
    assert math.isinf(found.high)
    assert "give more" in doubt(measured, found, plans=3, share=1.0)


def test_a_doubt_says_what_was_measured_and_how_many_samples_would_do():
    measured = record(0.0025, (-0.024, 0.029))
    text = doubt(measured, weigh(measured), plans=1, share=0.5)
    for words in ("drop of +0.0025", "budget 0.01", "-0.0240 to +0.0290", "cannot tell"):
        assert words in text
    assert "about 5,400 judging samples would (11,000 in <<data>>)" in text


@pytest.mark.parametrize(
    ("metric", "samples", "budget", "wanted"),
    [("top1", 99, 0.01, True), ("top1", 100, 0.01, False), ("agreement", 9, 0.1, True),
     ("psnr", 5, 0.1, False), ("cosine", 5, 0.01, False), ("top1", 5, 0.0, False)],
)  # fmt: skip
def test_right_and_wrong_answers_are_coarse_where_one_is_over_the_budget(
    metric, samples, budget, wanted
):
    assert is_coarse(metric, samples, budget) is wanted


class Scaled:
    """A model [N, 4] → [N, 4] that gives what it reads, each row scaled by its own number."""

    outputs = ("y",)

    def __init__(self, share):
        self.share = share

    def __call__(self, feeds):
        x = feeds["x"]
        return [x * (1 + self.share * np.sign(x[:, :1]))]


@pytest.mark.parametrize(("count", "is_held"), [(60, True), (3000, False)])
def test_few_easy_samples_do_not_let_a_changed_model_pass(tmp_path, count, is_held):
    """Every answer stays, and all outputs move by a fifth."""
    x = np.random.default_rng(0).standard_normal((count, 4)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, label=x.argmax(1))
    spec = TensorSpec("x", np.dtype(np.float32), ("n", 4))
    inputs = prepare([spec], Sources(data=(f"{tmp_path}/d.npz",), hold_out=True))
    referee = Referee(Scaled(0.0), inputs, Limits(max_drop="0.01"))
    assert referee.score(Scaled(0.0)).within(referee.budget)
    assert referee.score(Scaled(0.2)).within(referee.budget) is not is_held
    assert referee.judge(Scaled(0.2)).drop == 0  # what was measured is what is said


def test_intervals_of_few_continuous_scores_cover_the_mean():
    rng = np.random.default_rng(0)
    for count in (3, 5, 10):
        found = [
            drop_interval(rng.standard_normal(count) + 0.3, np.zeros(count)) for _ in range(2000)
        ]
        share = np.mean([low <= 0.3 <= high for low, high in found])
        assert share == pytest.approx(0.95, abs=0.02)
