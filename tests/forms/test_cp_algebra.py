"""The algebra of CP terms against textbook formulas, TensorLy and Monte Carlo."""

import numpy as np
import pytest
import tensorly as tl
from tensorly.tenalg import unfolding_dot_khatri_rao

from onnxcp.forms.solvers.cp_algebra import (
    WIDEST,
    Target,
    balance,
    positions,
    sensitivity,
    spatial_mode,
)
from onnxcp.forms.solvers.cp_als import extrapolated, fit_least_squares, least_squares, sweep
from onnxcp.forms.solvers.cp_epc import correct, least_sensitive, weights

KERNELS = {"T > S": (7, 4, 3, 5), "T < S": (3, 6, 3, 3)}
RANKS = {"one block": 5, "several blocks": 3 * WIDEST * 7}


def drawn(shape, rank, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape), [rng.standard_normal((size, rank)) for size in shape]


@pytest.mark.parametrize("shape", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("rank", RANKS.values(), ids=RANKS)
def test_products_equal_the_textbook_mttkrp(shape, rank):
    kernel, factors = drawn(shape, rank)
    target = Target.of(kernel, shape[2:])
    narrow, wide, window = target.narrow, target.wide, positions(factors[2:])
    carried = target.carry(factors[wide])
    contracted = carried.spatial_product(factors[narrow])
    ours = {
        narrow: carried.narrow_product(window),
        wide: target.wide_product(factors[narrow], window),
        2: spatial_mode(contracted, factors[2:], 0),
        3: spatial_mode(contracted, factors[2:], 1),
    }
    for mode, product in ours.items():
        oracle = unfolding_dot_khatri_rao(tl.tensor(kernel), (None, factors), mode)
        np.testing.assert_allclose(product, oracle, rtol=1e-10, atol=1e-10)


def test_a_sweep_is_alternating_least_squares():
    kernel, factors = drawn((6, 4, 3, 3), 3)
    target = Target.of(kernel, (9,))
    made, error = sweep(target, merged(factors), least_squares)
    rebuilt = np.einsum("tr,sr,kr->tsk", *made)
    assert error == pytest.approx(np.sum((kernel.reshape(6, 4, 9) - rebuilt) ** 2))
    unfolded = kernel.reshape(6, 4, 9)[:]
    normal = (made[1].T @ made[1]) * (made[2].T @ made[2])
    product = np.einsum("tsk,sr,kr->tr", unfolded, made[1], made[2])
    np.testing.assert_allclose(made[0] @ normal, product, atol=1e-8)  # last mode is solved


def merged(factors):
    """Channel factors and a merged window."""
    window = np.einsum("yr,xr->yxr", factors[2], factors[3]).reshape(9, -1)
    return factors[0], factors[1], window


def test_sensitivity_is_the_noise_gain():
    rng, sigma, trials = np.random.default_rng(0), 1e-4, 2000
    factors = [rng.standard_normal((size, 2)) for size in (5, 4, 3, 5)]
    kernel = np.einsum("tr,sr,yr,xr->tsyx", *factors)

    def moved():
        noisy = [f + sigma * rng.standard_normal(f.shape) for f in factors]
        return np.sum((np.einsum("tr,sr,yr,xr->tsyx", *noisy) - kernel) ** 2)

    gain = np.mean([moved() for _ in range(trials)]) / sigma**2
    assert gain == pytest.approx(sensitivity(factors), rel=0.05)


def test_balancing_keeps_the_terms_and_no_other_scaling_is_less_sensitive():
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((size, 3)) for size in (16, 8, 9)]
    balanced = balance(factors)
    np.testing.assert_allclose(
        np.einsum("tr,sr,kr->rtsk", *balanced), np.einsum("tr,sr,kr->rtsk", *factors)
    )
    least = sensitivity(balanced)
    for _ in range(50):
        scale = np.exp(0.3 * rng.standard_normal((3, 3)))
        scale /= np.cbrt(scale.prod(axis=0))
        other = [f * s for f, s in zip(balanced, scale, strict=True)]
        assert sensitivity(other) >= least * (1 - 1e-12)


def test_an_empty_term_is_balanced_to_zero():
    factors = [np.ones((4, 2)), np.ones((3, 2)), np.ones((9, 2))]
    factors[1][:, 0] = 0
    balanced = balance(factors)
    assert all(np.isfinite(f).all() for f in balanced)
    assert not balanced[0][:, 0].any()


def test_weights_split_sensitivity_by_mode():
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((size, 3)) for size in (5, 4, 9)]
    energy = np.stack([np.square(f).sum(axis=0) for f in factors])
    w = weights((5, 4, 9), energy, 0)
    doubled = [factors[0] * 2, *factors[1:]]
    rise = 3 * float(w @ energy[0])  # ‖2a‖² is 3‖a‖² more
    assert sensitivity(doubled) - sensitivity(factors) == pytest.approx(rise)


def test_the_closed_form_meets_its_bound_with_the_least_weighted_norm():
    rng = np.random.default_rng(0)
    data, z = rng.standard_normal((6, 40)), rng.standard_normal((40, 5))
    weight = rng.uniform(0.5, 2, 5)
    best = data @ z @ np.linalg.inv(z.T @ z)
    bound = 1.05 * np.sum((data - best @ z.T) ** 2)
    found = least_sensitive(data @ z, z.T @ z, weight, float(np.sum(data**2)), bound)
    assert np.sum((data - found @ z.T) ** 2) == pytest.approx(bound, rel=1e-6)
    for _ in range(200):  # no feasible neighbour has less norm
        other = found + 1e-3 * rng.standard_normal(found.shape)
        if np.sum((data - other @ z.T) ** 2) <= bound:
            assert np.sum(weight * other**2) >= np.sum(weight * found**2) * (1 - 1e-6)


def test_correction_never_leaves_its_bound():
    kernel, _ = drawn((10, 8, 3, 3), 1)
    target = Target.of(kernel, (9,))
    start = [np.random.default_rng(1).standard_normal((size, 12)) for size in (10, 8, 9)]
    rough = fit_least_squares(target, tuple(start), sweeps=200, finish=200, tolerance=1e-6)
    bound = rough.objective * 1.01**2
    calm = correct(target, rough.factors, bound=bound, sweeps=100, tolerance=1e-3)
    rebuilt = np.einsum("tr,sr,kr->tsk", *calm.factors)
    assert np.sum((kernel.reshape(10, 8, 9) - rebuilt) ** 2) <= bound * (1 + 1e-5)
    assert calm.objective == pytest.approx(sensitivity(calm.factors))


def test_extrapolation_never_keeps_a_worse_point():
    values = iter([5.0, 4.0, 4.5, 3.0, 9.0, 2.0, 2.0, 2.0])
    seen = []

    def step(point):
        seen.append(next(values))
        return point, seen[-1]

    ended = extrapolated(step, (np.zeros((1, 1)),), sweeps=8, tolerance=0.0)
    assert ended.objective == min(seen)


def test_acceleration_reaches_in_100_sweeps_what_plain_sweeps_miss_in_300():
    kernel, _ = drawn((16, 16, 3, 3), 1)
    target = Target.of(kernel, (9,))
    rng = np.random.default_rng(0)
    start = tuple(rng.standard_normal((size, 32)) for size in target.shape)
    fast = fit_least_squares(target, start, sweeps=50, finish=50, tolerance=0.0)
    factors, slow = balance(start), np.inf
    for _ in range(300):
        factors, slow = sweep(target, factors, least_squares)
    assert fast.objective < slow


def test_a_normal_matrix_that_is_not_finite_ends_as_nan_and_does_not_hang():
    broken = np.full((3, 3), np.nan)
    assert np.isnan(least_squares(0, np.ones((4, 3)), broken, np.ones((3, 3)))).all()
