"""Comparison of outputs: what passes, what fails, and where."""

import numpy as np
import pytest

from onnxcp.tally import Place
from onnxcp.verify import Tolerance, compare

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


def test_unequal_shapes_fail():
    assert "shapes differ" in verdict(lambda x: x[:, :2]).outputs[0].failure


def test_the_first_worst_element_is_located():
    found = verdict(planted((1, 2, 0), 9.0), tolerance=Tolerance(1e-3, 1e-3))
    assert found.outputs[0].worst == Place(1, (2, 0), X[1, 2, 0], 9.0)
    assert "sample 1, [2, 0]" in found.outputs[0].failure


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
