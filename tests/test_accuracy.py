"""Metrics against numbers worked out by hand, and intervals against simulation."""

import numpy as np
import pytest

from onnxcp.accuracy import METRICS, Evaluation, choose_metric, compare, drop_interval
from onnxcp.errors import DataError, UsageError
from onnxcp.samples import Batching, Samples

SCORES = np.array([[0.1, 0.7, 0.2], [0.8, 0.1, 0.1], [0.2, 0.3, 0.5]])


def samples(labels, count=3):
    return Samples(lambda rows: {"x": np.array(rows)[:, None]}, range(count), labels, "made")


def test_top1_counts_the_strongest_class():
    found = METRICS["top1"].score(SCORES, SCORES, np.array([1, 1, 2]))
    assert found.tolist() == [1, 0, 1]


def test_top5_counts_any_of_the_five_strongest():
    scores = np.arange(20.0).reshape(2, 10)
    assert METRICS["top5"].score(scores, scores, np.array([5, 4])).tolist() == [1, 0]


def test_top1_takes_scores_with_trailing_ones():
    found = METRICS["top1"].score(SCORES[:, :, None, None], SCORES, np.array([1, 0, 2]))
    assert found.tolist() == [1, 1, 1]


def test_agreement_is_with_the_original():
    other = SCORES[[0, 1, 0]]
    assert METRICS["agreement"].score(other, SCORES, None).tolist() == [1, 1, 0]


def test_agreement_of_maps_is_a_share_of_positions():
    a, b = np.zeros((1, 2, 2, 2)), np.zeros((1, 2, 2, 2))
    a[0, 1, 0, 0] = 1
    assert METRICS["agreement"].score(a, b, None).tolist() == [0.75]


def test_cosine_is_one_for_equal_outputs():
    assert METRICS["cosine"].score(2 * SCORES, SCORES, None) == pytest.approx([1, 1, 1])


def test_psnr_is_in_decibels_against_the_labels():
    labels = np.zeros((1, 1, 4, 4))
    found = METRICS["psnr"].score(labels + 0.1, labels, labels)
    assert found == pytest.approx([20.0])


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_out_of_range_is_refused(label):
    with pytest.raises(DataError, match=r"0\.\.2"):
        METRICS["top1"].score(SCORES, SCORES, np.array([0, label, 1]))


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        (None, "agreement"),
        (np.array([0, 1, 2]), "top1"),
        (np.zeros((3, 1, 2, 2), np.float32), "psnr"),
    ],
    ids=["no labels", "classes", "images"],
)
def test_the_metric_follows_from_the_labels(labels, name):
    assert choose_metric(None, samples(labels)).name == name


def test_a_metric_without_its_labels_is_refused():
    with pytest.raises(UsageError, match="needs labels"):
        choose_metric("top1", samples(None))


def test_evaluation_scores_all_samples_in_batches():
    labels = np.array([0, 1, 2, 0, 1])
    made = samples(labels, 5)

    def perfect(feeds):
        return [np.eye(3)[labels[feeds["x"][:, 0]]]]

    def worse(feeds):
        return [np.eye(3)[np.where(feeds["x"][:, 0] == 4, 0, labels[feeds["x"][:, 0]])]]

    evaluation = Evaluation(perfect, made, METRICS["top1"], Batching(2, fixed=False))
    found = evaluation.measure(worse)
    assert (found.before, found.after, found.samples) == (1.0, 0.8, 5)
    assert found.drop == pytest.approx(0.2)


def test_a_fixed_batch_is_filled_up_and_cut():
    seen = []

    def runner(feeds):
        seen.append(len(feeds["x"]))
        return [feeds["x"] * 2]

    (output,) = Batching(4, fixed=True).run(runner, {"x": np.array([1, 2, 3])})
    assert (output.tolist(), seen) == ([2, 4, 6], [4])


def test_intervals_hold_the_true_drop_as_often_as_they_say():
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        before = (rng.random(300) < 0.9).astype(float)
        after = np.where(rng.random(300) < 0.05, 1 - before, before)
        low, high = drop_interval(before, after)
        held += low <= 0.9 * 0.05 - 0.1 * 0.05 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_an_unchanged_model_still_has_an_interval():
    same = np.ones(100)
    low, high = drop_interval(same, same)
    assert low < 0 < high < 0.03


def test_continuous_scores_get_the_interval_of_the_mean():
    rng = np.random.default_rng(0)
    before = rng.standard_normal(1000)
    found = compare("psnr", before, before - 0.5 - 0.1 * rng.standard_normal(1000))
    assert found.drop == pytest.approx(0.5, abs=0.02)
    assert found.drop_ci[0] < 0.5 < found.drop_ci[1]
    assert found.drop_ci[1] - found.drop_ci[0] < 0.02
