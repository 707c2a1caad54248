import numpy as np
import pytest

from onnxcp.errors import DataError
from onnxcp.quantization import ranges


def batches(*arrays):
    return [{"x": np.asarray(a, np.float32)} for a in arrays]


def same(feeds):
    return feeds


def test_extremes_are_of_all_batches_and_hold_zero():
    assert ranges.extremes(same, batches([2.0, 3.0], [1.0])) == {"x": (0.0, 3.0)}
    assert ranges.extremes(same, batches([-2.0], [-1.0])) == {"x": (-2.0, 0.0)}


def test_an_activation_without_values_has_an_empty_range():
    assert ranges.extremes(same, batches([])) == {"x": (0.0, 0.0)}


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_name(wrong):
    with pytest.raises(DataError, match="'x' is NaN or infinite"):
        ranges.extremes(same, batches([1.0], [0.0, wrong]))


def histogram(*arrays):
    fed = batches(*arrays)
    found = ranges.extremes(same, fed)
    return ranges.histograms(same, fed, found)["x"], found["x"]


def test_histograms_count_every_value_once():
    counts, _ = histogram([-1.0, 0.0, 1.0], [0.5])
    assert counts.sum() == 4


def test_a_percentile_leaves_out_as_many_values_at_both_ends():
    counts, found = histogram(np.linspace(-10, 30, 100_001))
    low, high = ranges.percentile(counts, found, 90.0)
    assert low == pytest.approx(-8, abs=0.05)
    assert high == pytest.approx(28, abs=0.05)


def test_all_percent_keep_all_values():
    counts, found = histogram([-3.0, 5.0])
    assert ranges.percentile(counts, found, 100.0) == found


def test_squared_error_clips_one_outlier_and_keeps_what_has_none():
    rng = np.random.default_rng(0)
    plain = rng.uniform(-1, 1, 100_000)
    counts, found = histogram(plain, [50.0])
    low, high = ranges.least_error(counts, found)
    assert low == pytest.approx(found[0], rel=0.05)
    assert 1 <= high < found[1]
    counts, found = histogram(plain)
    assert ranges.least_error(counts, found) == pytest.approx(found, rel=0.03)


def test_the_chosen_range_rounds_and_clips_no_worse_than_the_extremes():
    values = np.random.default_rng(1).laplace(size=200_000)
    counts, found = histogram(values)
    assert squared(values, ranges.least_error(counts, found)) < squared(values, found)


def squared(values, found):
    """Of 8 bits over a range, worked out value by value."""
    step = (found[1] - found[0]) / 255
    return np.square(values - step * np.round(np.clip(values, *found) / step)).sum()


@pytest.mark.parametrize("choose", [ranges.least_error, lambda c, f: ranges.percentile(c, f, 99)])
@pytest.mark.parametrize("values", [[0.0, 0.0], [7.0, 7.0], [-7.0], []])
def test_constants_break_nothing(choose, values):
    counts, found = histogram(values)
    low, high = choose(counts, found)
    assert found[0] <= low <= 0 <= high <= found[1]
