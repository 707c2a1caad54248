"""Judging by fed sample: where the samples of an output are is found out by feeding."""

import numpy as np
import pytest

from onnxcp.data.samples import Batching, Samples
from onnxcp.errors import ModelError, UsageError
from onnxcp.measure.accuracy import Evaluation
from onnxcp.measure.by_sample import by_sample, lay_out

FREE, ONE, FOUR = Batching(8, fixed=False), Batching(1, fixed=True), Batching(4, fixed=True)
X = np.random.default_rng(0).standard_normal((10, 3, 5)).astype(np.float32)
SAMPLES = Samples(lambda rows: {"x": X[rows]}, range(10), None, "made")


def rows(feeds):
    """[samples, 3, 5]"""
    return [feeds["x"]]


def anchors(feeds):
    """[samples × 3, 5]"""
    return [feeds["x"].reshape(-1, 5)]


def both(feeds):
    return [feeds["x"], feeds["x"].reshape(-1, 5)]


def mixed(feeds):
    """[samples, …], but of all samples together."""
    return [feeds["x"] - feeds["x"].mean(axis=0)]


def one_only(feeds):
    """A batch that is free in name only."""
    if len(feeds["x"]) > 1:
        raise ModelError("no")
    return [feeds["x"]]


@pytest.mark.parametrize(
    ("runner", "batching", "alone"),
    [
        (rows, FREE, False),
        (rows, FOUR, False),
        (rows, ONE, True),
        (anchors, FREE, True),
        (anchors, FOUR, True),
        (anchors, ONE, True),
        (both, FREE, True),
        (mixed, FREE, True),
        (mixed, FOUR, True),
        (one_only, FREE, True),
    ],
)
def test_samples_go_in_together_only_where_outputs_keep_them_apart(runner, batching, alone):
    assert lay_out(runner, SAMPLES, batching).batching.alone is alone


@pytest.mark.parametrize("runner", [rows, anchors, both, one_only])
@pytest.mark.parametrize("batching", [FREE, ONE, FOUR])
def test_the_score_counts_fed_samples_however_they_come_out(runner, batching):
    if runner is one_only and batching is FOUR:
        pytest.skip("takes one sample at a time")

    def worse(feeds):
        """Wrong on every second sample."""
        wrong = np.isin(feeds["x"][:, 0, 0], X[::2, 0, 0])[:, None, None]
        return runner({"x": np.where(wrong, -feeds["x"], feeds["x"])})

    judge = Evaluation(runner, SAMPLES, "relative-error", batching)
    found = judge.measure(worse)
    assert found.samples == 10
    assert found.after == pytest.approx(1.0)  # 2 on every second sample
    low, high = found.drop_ci
    assert 0.2 < high - 1.0 < 1.0
    assert high - 1.0 == pytest.approx(1.0 - low)


def test_a_sample_is_as_bad_as_its_worst_output():
    def worse(feeds):
        return [feeds["x"], 0 * feeds["x"].reshape(-1, 5)]

    found = Evaluation(both, SAMPLES, "cosine", FREE).measure(worse)
    assert (found.before, found.after, found.drop) == (pytest.approx(1), 0, pytest.approx(1))
    assert [o.after for o in found.outputs] == [pytest.approx(1), 0]
    assert [o.change for o in found.outputs] == [0, 1]


def test_named_outputs_alone_are_judged_and_all_are_shown():
    def worse(feeds):
        return [feeds["x"], 0 * feeds["x"].reshape(-1, 5)]

    judge = Evaluation(both, SAMPLES, "cosine", FREE, only=["output 0"])
    found = judge.measure(worse)
    assert found.drop == pytest.approx(0)
    assert [(o.name, o.after is None) for o in found.outputs] == [
        ("output 0", False),
        ("output 1", True),
    ]


def test_classes_stay_the_second_axis_of_what_one_run_gives():
    alone = Batching(1, fixed=True, alone=True)
    assert by_sample(np.zeros((1, 10)), alone).shape == (1, 10)
    assert by_sample(np.zeros(10), alone).shape == (1, 10)
    assert by_sample(np.zeros((12, 4)), alone).shape == (1, 4, 12)
    assert by_sample(np.zeros(()), alone).shape == (1, 1)


def test_texts_are_left_out_of_what_is_judged():
    def runner(feeds):
        return [np.array(["cat"] * len(feeds["x"])), feeds["x"]]

    assert lay_out(runner, SAMPLES, FREE).places == (1,)


def test_a_model_that_gives_no_numbers_is_refused():
    with pytest.raises(UsageError, match="nothing can be judged"):
        lay_out(lambda feeds: [np.array(["cat"] * len(feeds["x"]))], SAMPLES, FREE)
