"""Shapes that annotations state are checked in every test, and cost little."""

import jaxtyping
import numpy as np
import pytest
import shape_checks

from onnxcp.forms.solvers.cp_algebra import grams_except, sensitivity


@pytest.mark.parametrize("time", ["first", "second"])
def test_every_test_refuses_a_wrong_shape_anew(time):
    with pytest.raises(jaxtyping.TypeCheckError):
        grams_except([np.ones((2, 3))], 0)
    for _ in range(2 * shape_checks.CHECKED_CALLS):
        grams_except([np.ones((3, 3))], 0)


def test_a_function_is_checked_in_its_first_calls_alone():
    for _ in range(2 * shape_checks.CHECKED_CALLS):
        sensitivity([np.ones((4, 2)), np.ones((3, 2))])
    assert shape_checks.calls[sensitivity.__wrapped__.__code__] == shape_checks.CHECKED_CALLS
