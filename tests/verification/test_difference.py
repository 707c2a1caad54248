"""Comparison of outputs: what passes, what fails, and where."""

import numpy as np
import pytest

from onnxcp.verification.difference import Tolerance, compare
from onnxcp.verification.output_stats import Place

X = np.linspace(-1, 1, 24).reshape(2, 3, 4)


def verdict(change, **rules):
    """Compare a model with the same one after `change` of its output."""
    return compare(lambda f: [f["x"]], lambda f: [change(f["x"])], ["y"], [{"x": X}], **rules)


def planted(index, value):
    def change(x):
        x = x.copy()
        x[index] = value
        return x

    return change


def test_equal_outputs_pass_any_tolerance():
    found = verdict(lambda x: x, tolerance=Tolerance(0.0, 0.0))
    assert found.ok
    assert found.outputs[0].cosine == pytest.approx(1.0)
    assert found.outputs[0].top_1 == 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_fail_without_any_tolerance(value):
    found = verdict(planted((1, 2, 3), value))
    assert not found.ok
    assert "1 of 24 values of the candidate" in found.outputs[0].failure


def test_what_is_not_finite_is_counted_by_side_and_located():
    x = planted((0, 1, 1), np.nan)(X)
    y = planted((1, 2, 3), np.inf)(x)
    found = compare(lambda f: [x], lambda f: [y], ["y"], [{"x": X}]).outputs[0]
    assert found.failure == (
        "1 of 24 values of the reference and 2 of 24 values of the candidate are NaN or infinite, "
        "the first at sample 0, [1, 1]: nan in the reference, nan now"
    )
    assert found.max_abs == 0.0


@pytest.mark.parametrize("other", [X.astype(np.float32), X[..., None], X > 0])
def test_unequal_dtypes_and_ranks_fail_with_words(other):
    failure = verdict(lambda x: other).outputs[0].failure
    assert failure is not None
    assert failure.startswith("the reference gives ")


def test_unequal_shapes_fail():
    assert "shapes differ" in verdict(lambda x: x[:, :2]).outputs[0].failure


def test_the_first_worst_element_is_located():
    found = verdict(planted((1, 2, 0), 9.0), tolerance=Tolerance(1e-3, 1e-3))
    assert found.outputs[0].worst == Place(1, (2, 0), X[1, 2, 0], 9.0)
    assert "sample 1, [2, 0]" in found.outputs[0].failure


def test_the_worst_element_is_located_in_its_sample_of_its_batch():
    feeds = [{"x": X}, {"x": 2 * X}, {"x": 3 * X[:1]}]
    bent = {float(2 * X[1, 0, 0]): (1, 0, 2)}

    def candidate(f):
        index = bent.get(float(f["x"][-1, 0, 0]))
        return [f["x"] if index is None else planted(index, 9.0)(f["x"])]

    found = compare(lambda f: [f["x"]], candidate, ["y"], feeds, numbers=[0, 3, 5, 7, 11])
    assert found.samples == 5
    assert found.outputs[0].worst == Place(7, (0, 2), 2 * X[1, 0, 2], 9.0)


def test_an_output_without_a_batch_is_located_as_a_whole():
    found = compare(lambda f: [X], lambda f: [planted((1, 2, 0), 9.0)(X)], ["y"], [{"x": X[:1]}])
    assert found.outputs[0].worst == Place(0, (1, 2, 0), X[1, 2, 0], 9.0)
    assert found.outputs[0].shape == X.shape


def test_a_single_number_is_compared():
    found = compare(lambda f: [np.float64(2)], lambda f: [np.float64(3)], ["y"], [{"x": X[:1]}])
    assert found.outputs[0].worst == Place(0, (), 2.0, 3.0)


def test_what_is_no_number_is_equal_or_not():
    words = np.array([["a", "b"], ["c", "d"]], dtype=object)
    other = np.array([["a", "b"], ["c", "e"]], dtype=object)
    rule = Tolerance(0.0, 0.0)
    for given, ok in ((words, True), (other, False)):
        found = compare(lambda f: [words], lambda f, g=given: [g], ["y"], [{}], tolerance=rule)
        assert found.ok is ok


def test_statistics_are_those_of_all_samples():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 6, 10))
    feeds = [{"x": x[:4], "y": y[:4]}, {"x": x[4:], "y": y[4:]}]
    found = compare(lambda f: [f["x"]], lambda f: [f["y"]], ["y"], feeds).outputs[0]
    error = np.abs(x - y)
    assert found.relative_l2 == pytest.approx(np.linalg.norm(error) / np.linalg.norm(x))
    assert found.snr_db == pytest.approx(10 * np.log10((x**2).sum() / (error**2).sum()))
    assert found.cosine == pytest.approx((x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y))
    assert found.max_abs == pytest.approx(error.max())
    assert found.mean_abs == pytest.approx(error.mean())
    assert found.median_abs == pytest.approx(np.median(error))


def test_equal_outputs_have_no_noise():
    assert verdict(lambda x: x).outputs[0].snr_db == np.inf
    assert verdict(lambda x: 0 * x).outputs[0].snr_db == 0.0
    assert verdict(lambda x: 0 * x).outputs[0].cosine == 0.0


def test_agreement_is_the_share_of_samples_with_the_same_strongest_channels():
    scores = np.array([[5, 4, 3, 2, 1, 0], [5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5]], float)
    other = np.array([[4, 5, 3, 2, 1, 0], [5, 4, 0, 3, 2, 1], [0, 1, 2, 4, 3, 5]], float)
    pair = (lambda f: [scores], lambda f: [other], ["y"], [{"x": scores}])
    for k, share in ((1, 2 / 3), (2, 2 / 3), (3, 2 / 3), (5, 2 / 3)):
        found = compare(*pair, top_k=k).outputs[0]
        assert (found.top_1, found.top_k) == (2 / 3, pytest.approx(share)), k
    assert compare(*pair, top_k=6).outputs[0].top_k is None


def test_agreement_is_taken_at_every_position():
    x = np.zeros((2, 3, 4))
    x[:, 0] = 1
    found = compare(lambda f: [x], lambda f: [planted((0, 1, 2), 2.0)(x)], ["y"], [{"x": x}])
    assert found.outputs[0].top_1 == 7 / 8


@pytest.mark.parametrize(
    ("stat", "ok"), [("elemwise", False), ("max", False), ("mean", False), ("median", True)]
)
def test_a_statistic_decides_what_one_bad_element_means(stat, ok):
    found = verdict(planted((0, 0, 0), 9.0), tolerance=Tolerance(0.0, 1e-3, stat))
    assert found.ok is ok


def test_a_tolerance_may_name_its_output():
    rules = {"other": Tolerance(0.0, 0.0)}
    assert verdict(lambda x: x + 1, tolerance=rules).ok
    assert not verdict(lambda x: x + 1, tolerance={"y": Tolerance(0.0, 0.0)}).ok


def test_relative_l2_is_bounded():
    assert verdict(lambda x: x * 1.01, most_l2=0.011).ok
    found = verdict(lambda x: x * 1.01, most_l2=0.009)
    assert "relative L2" in found.outputs[0].failure
    assert found.relative_l2 == pytest.approx(0.01)


def test_permuted_outputs_are_far_apart():
    assert verdict(lambda x: x[:, ::-1], most_l2=0.1).ok is False
