"""Kernels and covariances that no trained layer should have, and some do: a value, or a clear
error, from every form in every norm."""

import numpy as np
import pytest

from onnxcp.errors import DataError
from onnxcp.forms import FORMS, Effort, Outcome
from onnxcp.forms.cp import Cp3
from onnxcp.forms.fit import Solution
from onnxcp.forms.solvers.norm import Norm, relative_error

SHORT = Effort(sweeps=80, finish=30, corrections=30, polish=40)
ALL_FORMS = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def _kernel(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def _ranges(*shape):
    """Channels whose scales span twenty decades."""
    return _kernel(*shape) * np.logspace(-10, 10, shape[0])[:, None, None, None]


KERNELS = {
    "zero": np.zeros((6, 4, 3, 3)),
    "constant": np.full((6, 4, 3, 3), 0.5),
    "one entry": np.eye(1, 6 * 4 * 9).reshape(6, 4, 3, 3),
    "of rank one": np.einsum("t,s,y,x->tsyx", *(_kernel(n) for n in (6, 4, 3, 3))),
    "one channel": _kernel(1, 1, 3, 3),
    "one output": _kernel(1, 5, 3, 3),
    "twenty decades": _ranges(6, 4, 3, 3),
    "huge": 1e30 * _kernel(6, 4, 3, 3),
    "denormal for float32": (1e-40 * _kernel(6, 4, 3, 3)).astype(np.float32),
    "float16": _kernel(6, 4, 3, 3).astype(np.float16),
    "equal inputs": np.repeat(_kernel(6, 1, 3, 3), 4, axis=1),
}


def _covariance(size, samples=200):
    rows = np.random.default_rng(1).standard_normal((samples, size))
    return rows.T @ rows / samples


def _dead(size):
    covariance = _covariance(size)
    covariance[:, ::2], covariance[::2] = 0, 0
    return covariance


COVARIANCES = {
    "none": None,
    "patches": _covariance,
    "fewer samples than dimensions": lambda size: _covariance(size, 3),
    "dead inputs": _dead,
    "one live direction": lambda size: np.ones((size, size)),
    "tiny": lambda size: 1e-30 * _covariance(size),
    "huge": lambda size: 1e30 * _covariance(size),
}


def pair(kernel, covariance):
    """Every kernel with two covariances and every covariance with one kernel are quick enough."""
    is_quick = covariance in ("none", "patches") or kernel == "equal inputs"
    marks = () if is_quick else pytest.mark.slow
    name = f"{kernel}-{covariance}"
    return pytest.param(KERNELS[kernel], COVARIANCES[covariance], marks=marks, id=name)


PAIRS = [pair(kernel, covariance) for kernel in KERNELS for covariance in COVARIANCES]


@ALL_FORMS
@pytest.mark.parametrize(("kernel", "measured"), PAIRS)
def test_a_fit_is_finite_and_knows_its_error(form, measured, kernel):
    if form.refuses(kernel.shape) is not None:
        pytest.skip(form.refuses(kernel.shape))
    norm = None if measured is None else Norm.of(measured(kernel[0].size))
    rank = min(4, form.largest(kernel.shape))
    fit = form.fit(kernel, rank, norm, np.random.default_rng(0), SHORT, None)
    assert fit.outcome is not Outcome.DIVERGED
    assert all(np.isfinite(f).all() for f in fit.factors)
    assert np.isfinite(fit.sensitivity_after)
    assert 0 <= fit.error <= 1 + 1e-9
    largest = float(np.abs(kernel).max()) or 1.0
    rebuilt = form.reconstruct(fit.factors, kernel.shape) / largest
    error = relative_error(kernel.astype(np.float64) / largest, rebuilt, norm)
    assert fit.error == pytest.approx(error, rel=1e-3, abs=1e-9)


@ALL_FORMS
@pytest.mark.parametrize("scale", [1e300, 1e-310])
def test_a_kernel_at_the_ends_of_float64_is_refused(form, scale):
    kernel = scale * _kernel(6, 4, 3, 3)
    fit = form.fit(kernel, 4, None, np.random.default_rng(0), SHORT, None)
    assert fit.outcome is Outcome.DIVERGED


@pytest.mark.parametrize("size", [36, 4], ids=["patches", "channels"])
def test_inputs_that_never_vary_leave_the_plain_norm(size):
    assert Norm.of(np.zeros((size, size))) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_covariance_that_is_not_finite_names_the_layer(value):
    covariance = np.eye(36)
    covariance[3, 4] = value
    with pytest.raises(DataError, match="conv7"):
        Norm.of(covariance, "conv7")


def _w():
    """Of rank three, and the limit of sums of two terms that grow and cancel."""
    one, other = np.eye(2)
    sides = [(one, one, other), (one, other, one), (other, one, one)]
    return sum(np.einsum("t,s,k->tsk", *side) for side in sides)


@pytest.mark.parametrize("large", [1e1, 1e5])
def test_factors_whose_terms_cancel_are_refused_unless_they_can_be_stored(large):
    """The difference of two terms `large` times as large as it."""
    one, other = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 2)))[0].T
    near = one + other / large
    terms = tuple(np.stack([near, one], axis=1) * [1, sign] for sign in (1, 1, -1))
    factors = tuple(f * np.cbrt(large) for f in terms)
    kernel = np.einsum("tr,sr,kr->tsk", *factors)

    class Planted(Cp3):
        def solve(self, problem):
            return Solution(factors, factors, 1, True)

    fit = Planted().fit(kernel, 2, None, np.random.default_rng(0), SHORT, None)
    assert fit.outcome is (Outcome.CONVERGED if large < 1e5 else Outcome.DEGENERATE)
    assert fit.outcome.is_usable == (large < 1e5)


@pytest.mark.parametrize("seed", range(4))
def test_a_fit_at_the_limit_of_its_rank_is_calm_or_refused(seed):
    form, kernel = FORMS["cp3"], _w()
    fit = form.fit(kernel, 2, None, np.random.default_rng(seed), Effort(floor=0.0), None)
    stored = tuple(f.astype(np.float16).astype(np.float64) for f in fit.factors)
    change = form.reconstruct(stored, kernel.shape) - form.reconstruct(fit.factors, kernel.shape)
    assert np.linalg.norm(change) < 0.15 * np.linalg.norm(kernel) or not fit.outcome.is_usable


def test_svd_is_exact_where_terms_would_cancel():
    fit = FORMS["svd"].fit(_w(), 2, None, np.random.default_rng(0), Effort(), None)
    assert fit.outcome.is_usable
    assert fit.error < 1e-12
