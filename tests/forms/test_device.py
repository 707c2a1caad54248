"""Fits on TensorLy's torch backend: the same code, the same results."""

from dataclasses import replace

import numpy as np
import pytest

from onnxcp.errors import MissingPackage, ProviderError
from onnxcp.forms import FORMS, Effort
from onnxcp.forms.solvers.cp_algebra import Target
from onnxcp.forms.solvers.cp_als import least_squares, sweep
from onnxcp.forms.solvers.cp_weighted import evaluate
from onnxcp.forms.solvers.device import named
from onnxcp.forms.solvers.norm import Norm
from onnxcp.forms.solvers.weighted_problem import Problem


def covariance(size):
    rows = np.random.default_rng(1).standard_normal((3 * size, size))
    return rows.T @ rows


KERNEL = np.random.default_rng(0).standard_normal((24, 16, 3, 3))
SHORT = Effort(sweeps=60, finish=20, corrections=20, polish=10)  # every stage of a fit
WINDOWS = pytest.mark.parametrize("spatial", [(9,), (3, 3)], ids=["cp3", "cp4"])


def factors(spatial):
    rng = np.random.default_rng(1)
    return tuple(rng.standard_normal((size, 20)) for size in (24, 16, *spatial))


@WINDOWS
def test_a_sweep_on_torch_gives_what_numpy_gives(spatial):
    pytest.importorskip("torch")
    one, two = (
        sweep(Target.of(KERNEL, spatial, named(d)), factors(spatial), least_squares)
        for d in ("cpu", "torch")
    )
    assert one[1] == pytest.approx(two[1], rel=1e-9)
    for a, b in zip(one[0], two[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@WINDOWS
def test_slopes_on_torch_are_what_numpy_gives(spatial):
    pytest.importorskip("torch")
    norm = Norm.of(covariance(16 * 9))
    one, two = (
        evaluate(Problem.of(KERNEL, spatial, norm, named(d)), factors(spatial)[1:], 1e-3)
        for d in ("cpu", "torch")
    )
    assert one.error == pytest.approx(two.error, rel=1e-9)
    for a, b in zip(one.slope(1e-3), two.slope(1e-3), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9 * np.abs(a).max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_a_fit_on_torch_is_as_good_as_one_in_numpy(form, weighted):
    pytest.importorskip("torch")
    norm = Norm.of(covariance(16 * 9)) if weighted else None
    one, two = (
        FORMS[form].fit(KERNEL, 20, norm, np.random.default_rng(2), replace(SHORT, device=d), None)
        for d in ("cpu", "torch")
    )
    assert one.error == pytest.approx(two.error, rel=0.03)


def test_a_device_that_is_not_there_is_an_error_with_a_remedy():
    with pytest.raises((MissingPackage, ProviderError), match="fit_device=cuda"):
        named("cuda")


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives():
    kernel = np.random.default_rng(0).standard_normal((64, 64, 3, 3))
    norm = Norm.of(covariance(64 * 9))
    errors = [
        FORMS["cp3"].fit(kernel, 64, norm, np.random.default_rng(2), Effort(device=d), None).error
        for d in ("cpu", "cuda")
    ]
    assert errors[0] == pytest.approx(errors[1], rel=1e-2)
