"""Metrics against numbers worked out by hand, and intervals against simulation."""

import numpy as np
import pytest

from onnxcp.data.samples import Batching, Samples
from onnxcp.errors import DataError, UsageError
from onnxcp.measure.accuracy import Evaluation, drop_interval
from onnxcp.measure.metric_choice import choose
from onnxcp.measure.metric_table import METRICS
from onnxcp.measure.metrics import MAX_SNR, Metric

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
    ("labels", "outputs", "name"),
    [
        (None, {"y": (10,)}, "agreement"),
        (None, {"y": (10, 1, 1)}, "agreement"),
        (None, {"y": (3, 8, 8)}, "relative-error"),
        (None, {"y": (1,)}, "relative-error"),
        (None, {"boxes": (4,), "scores": (2,)}, "relative-error"),
        (np.array([0, 1, 2]), {"y": (10,)}, "top1"),
        (np.array([0, 1, 2]), {"y": (10,), "features": (512, 1)}, "top1"),
        (np.array([0, 1, 900]), {"boxes": (4,), "points": (10,)}, "relative-error"),
        (np.array([0, 1, 2]), {"boxes": (4, 9), "scores": (1, 9)}, "relative-error"),
        (np.zeros((3, 1, 2, 2), np.float32), {"y": (1, 2, 2)}, "psnr"),
    ],
)
def test_the_metric_follows_from_labels_and_outputs(labels, outputs, name):
    assert choose(None, outputs, labels, "made").metric.name == name


def test_a_metric_without_its_labels_is_refused():
    with pytest.raises(UsageError, match="needs labels"):
        choose("top1", {"y": (3,)}, None, "made")


@pytest.mark.parametrize(
    ("metric", "shape"),
    [
        ("cosine", (1,)),
        ("cosine", (1, 1, 1)),
        ("agreement", (1,)),
        ("agreement", (1, 7, 7)),
        ("top5", (5,)),
    ],
)
def test_a_metric_that_cannot_differ_is_refused_with_one_that_can(metric, shape):
    labels, choosing = np.zeros(50, int), r"cannot change on output 'y'.*choose metric=\S+,"
    with pytest.raises(UsageError, match=choosing) as refused:
        choose(metric, {"y": shape}, labels, "made")
    other = str(refused.value).split("choose metric=")[1].split(",")[0]
    score = choose(other, {"y": shape}, labels, "made").metric.score
    outputs = np.random.default_rng(0).standard_normal((50, *shape))
    assert (score(-outputs, outputs, labels) != score(outputs, outputs, labels)).any()


@pytest.mark.parametrize("metric", ["top1", "top5"])
def test_class_metrics_are_refused_on_outputs_that_are_no_classes(metric):
    with pytest.raises(UsageError, match="needs an output of class scores"):
        choose(metric, {"map": (3, 8, 8), "one": (1,)}, np.array([0, 1]), "made")


def test_class_metrics_judge_the_output_that_is_of_classes():
    assert choose("top1", {"map": (3, 8, 8), "y": (10,)}, np.array([0, 1]), "made").places == (1,)


def test_an_output_that_is_not_there_is_refused_by_name():
    with pytest.raises(UsageError, match="output_name=z: not judged; choose of y"):
        choose("cosine", {"y": (3,)}, None, "made", ["z"])


# --- laws of every metric that compares with the original

AGAINST_ORIGINAL = [m for m in METRICS.values() if not m.needs_labels]
BY_NAME = pytest.mark.parametrize("metric", AGAINST_ORIGINAL, ids=lambda m: m.name)


def _worse(metric, a, b):
    """Whether scores `a` are worse than `b` on every sample."""
    return (a < b).all() if metric.higher_is_better else (a > b).all()


@BY_NAME
def test_the_original_scores_best_against_itself(metric):
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((5, 4, 3))
    best = metric.score(reference, reference, None)
    assert _worse(metric, metric.score(-reference, reference, None), best)


@BY_NAME
def test_zeros_for_zeros_are_no_change(metric):
    zeros, rng = np.zeros((2, 4)), np.random.default_rng(0)
    some = rng.standard_normal((2, 4))
    found = metric.score(zeros, zeros, None)
    assert found == pytest.approx(metric.score(some, some, None))


@BY_NAME
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_is_never_as_good_as_the_original(metric, wrong):
    reference = np.random.default_rng(0).standard_normal((3, 4))
    broken = np.full_like(reference, wrong)
    broken[:, 0] = reference[:, 0]
    if metric.name == "agreement" and np.isinf(wrong):
        pytest.skip("infinity is the strongest channel, which may be the original's")
    best = metric.score(reference, reference, None)
    assert _worse(metric, metric.score(broken, reference, None), best)
    if np.isnan(wrong):
        assert _worse(metric, metric.score(broken, broken, None), best)


@BY_NAME
def test_a_sample_has_the_same_score_in_any_company(metric):
    rng = np.random.default_rng(1)
    reference, output = rng.standard_normal((2, 6, 4, 3))
    together = metric.score(output, reference, None)
    apart = [metric.score(output[i : i + 1], reference[i : i + 1], None)[0] for i in range(6)]
    assert together == pytest.approx(apart)


def test_cosine_of_something_with_zero_is_zero():
    assert METRICS["cosine"].score(SCORES, 0 * SCORES, None).tolist() == [0, 0, 0]
    assert METRICS["cosine"].score(0 * SCORES, SCORES, None).tolist() == [0, 0, 0]


def test_a_class_of_nan_scores_is_no_hit():
    assert METRICS["top1"].score(np.full((1, 3), np.nan), SCORES[:1], np.array([0])).tolist() == [0]


def test_errors_are_those_worked_out_by_hand():
    reference, output = np.array([[3.0, 4.0]]), np.array([[3.0, 4.5]])
    found = {m.name: m.score(output, reference, None)[0] for m in AGAINST_ORIGINAL}
    assert found["relative-error"] == pytest.approx(0.1)
    assert found["snr"] == pytest.approx(20.0)
    assert found["max-error"] == pytest.approx(0.5)
    assert found["mae"] == pytest.approx(0.25)
    assert METRICS["snr"].score(reference, reference, None).tolist() == [MAX_SNR]


def test_evaluation_scores_all_samples_in_batches():
    labels = np.array([0, 1, 2, 0, 1])
    made = samples(labels, 5)

    def perfect(feeds):
        return [np.eye(3)[labels[feeds["x"][:, 0]]]]

    def worse(feeds):
        return [np.eye(3)[np.where(feeds["x"][:, 0] == 4, 0, labels[feeds["x"][:, 0]])]]

    evaluation = Evaluation(perfect, made, "top1", Batching(2, fixed=False))
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
    low, high = drop_interval(before, before - 0.5 - 0.1 * rng.standard_normal(1000))
    assert low < 0.5 < high
    assert high - low < 0.02


def test_the_interval_of_a_metric_that_is_better_lower_is_turned():
    before, after = np.zeros(5), np.array([0.1, 0.2, 0.3, 0.2, 0.2])
    low, high = drop_interval(before, after, -1.0)
    assert 0.1 < low < 0.2 < high < 0.3


def test_equal_outputs_leave_no_doubt_where_scores_are_no_hits():
    def runner(feeds):
        return [np.eye(3)[feeds["x"][:, 0] % 3]]

    made = samples(None, 20)
    found = Evaluation(runner, made, "cosine", Batching(4, fixed=False)).measure(runner)
    assert found.drop_ci == (0.0, 0.0)
    found = Evaluation(runner, made, "agreement", Batching(4, fixed=False)).measure(runner)
    assert found.drop_ci[0] < 0 < found.drop_ci[1]


# --- metrics of the whole set, as a user writes them


def _share_above_zero(outputs, labels):
    del labels
    return float((outputs["output 0"] > 0).mean())


def whole(function, count, **direction):
    numbers = np.random.default_rng(0).standard_normal((count, 1, 1)).astype(np.float32)
    made = Samples(lambda rows: {"x": numbers[rows]}, range(count), None, "made")
    metric = Metric("module:function", function=function, **direction)
    return Evaluation(lambda feeds: [feeds["x"]], made, metric, Batching(8, fixed=False)), numbers


def test_a_function_sees_the_whole_evaluation_set_at_once():
    seen = []

    def counted(outputs, labels):
        assert labels is None
        seen.append(outputs["output 0"].shape)
        return 1.0

    whole(counted, 20)
    assert seen == [(20, 1, 1)]


def test_the_interval_of_a_function_is_that_of_the_mean_where_it_is_a_mean():
    judge, numbers = whole(_share_above_zero, 400)
    found = judge.measure(lambda feeds: [feeds["x"] - 0.3])
    before, after = (numbers > 0).ravel(), (numbers > 0.3).ravel()
    assert found.drop == pytest.approx(before.mean() - after.mean())
    low, high = drop_interval(before.astype(float), after.astype(float))
    assert found.drop_ci == pytest.approx((low, high), abs=0.3 * (high - low))


def test_a_function_that_is_better_lower_loses_by_growing():
    judge, _ = whole(_share_above_zero, 50, higher_is_better=False)
    assert judge.measure(lambda feeds: [feeds["x"] + 9]).drop > 0.3


def test_a_function_that_fails_is_said_to():
    def broken(outputs, labels):
        raise KeyError("boxes")

    with pytest.raises(UsageError, match="module:function: KeyError: 'boxes'"):
        whole(broken, 4)
