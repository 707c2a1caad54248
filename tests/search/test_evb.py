"""Ranks by empirical variational Bayes, on matrices whose rank is known."""

import numpy as np
import pytest

from onnxcp.plan import Spectrum
from onnxcp.search.evb import gain, rank


def spectrum(matrix):
    return Spectrum(tuple(np.linalg.svd(matrix, compute_uv=False)), *matrix.shape)


def planted(rows, columns, of_rank, noise, seed):
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((rows, of_rank)) @ rng.standard_normal((of_rank, columns))
    return signal + noise * rng.standard_normal((rows, columns))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (64, 576), (576, 64), (32, 48)])
@pytest.mark.parametrize("of_rank", [1, 5, 12])
def test_a_planted_rank_is_found(rows, columns, of_rank, seed):
    assert rank(spectrum(planted(rows, columns, of_rank, 0.5, seed))) == of_rank


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (64, 576), (200, 20)])
def test_noise_has_no_rank(rows, columns, seed):
    noise = 0.01 * np.random.default_rng(seed).standard_normal((rows, columns))
    assert rank(spectrum(noise)) == 0


def test_a_matrix_without_noise_keeps_its_rank():
    assert rank(spectrum(planted(40, 60, 7, 0.0, 0))) == 7


def test_the_scale_of_a_matrix_does_not_matter():
    matrix = planted(64, 128, 9, 0.5, 0)
    assert rank(spectrum(1e-6 * matrix)) == rank(spectrum(1e6 * matrix)) == 9


def test_a_weak_component_is_taken_for_noise():
    matrix = np.random.default_rng(0).standard_normal((50, 100))
    weak = np.outer(np.ones(50) / np.sqrt(50), np.ones(100) / np.sqrt(100))
    assert rank(spectrum(matrix + 10 * weak)) == 0
    assert rank(spectrum(matrix + 40 * weak)) == 1


@pytest.mark.parametrize("matrix", [np.zeros((4, 9)), np.zeros((1, 1))])
def test_zeros_have_no_rank(matrix):
    assert rank(spectrum(matrix)) == 0


@pytest.mark.parametrize("alpha", [1.0, 0.25, 0.01])
def test_the_threshold_is_that_of_the_paper(alpha):
    """τ is about 2.5129 √α where keeping a component begins to pay; exact at α = 1."""
    x = np.linspace(1, 12, 100_001)
    tau = 2.5129 * np.sqrt(alpha)
    threshold = x[np.flatnonzero(gain(x, alpha))[0]]
    assert threshold == pytest.approx((1 + tau) * (1 + alpha / tau), rel=3e-2)
    if alpha == 1:
        assert threshold == pytest.approx((1 + tau) * (1 + 1 / tau), rel=1e-4)
