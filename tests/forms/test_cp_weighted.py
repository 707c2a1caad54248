"""The search under a covariance: its gradients against differences, and its norm by hand."""

import numpy as np
import pytest

from onnxcp.forms.solvers.cp_weighted import evaluate
from onnxcp.forms.solvers.norm import Norm, flat, unflat
from onnxcp.forms.solvers.weighted_problem import Problem

SHAPE = (5, 4, 3, 2)
SPATIAL = {"cp3": (6,), "cp4": (3, 2)}


def measured(size):
    rows = np.random.default_rng(1).standard_normal((3 * size, size)) * np.logspace(-1, 0, size)
    return Norm.of(rows.T @ rows / len(rows))


NORMS = {"patches": measured(24), "channels": measured(4)}


@pytest.mark.parametrize("spatial", SPATIAL.values(), ids=SPATIAL)
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("price", [0.0, 1e-3])
def test_slopes_are_those_of_the_objective(spatial, norm, price):
    """The output factor is the best one at each price, so the objective's slope is that of
    its other factors alone."""
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal(SHAPE)
    problem = Problem.of(kernel / np.sqrt(norm.energy(kernel)), spatial, norm)
    inner = tuple(rng.standard_normal((size, 3)) for size in (SHAPE[1], *spatial))
    slope = evaluate(problem, inner, price).slope(price)
    for mode, factor in enumerate(inner):
        for index in np.ndindex(factor.shape):
            rise = [objective(problem, inner, mode, index, by, price) for by in (1e-5, -1e-5)]
            difference = (rise[0] - rise[1]) / 2e-5
            assert slope[mode][index] == pytest.approx(difference, rel=1e-4, abs=1e-6)


def objective(problem, inner, mode, index, by, price):
    moved = [f.copy() for f in inner]
    moved[mode][index] += by
    return evaluate(problem, tuple(moved), price).objective(price)


@pytest.mark.parametrize("spatial", SPATIAL.values(), ids=SPATIAL)
def test_the_output_factor_is_the_best_one(spatial):
    rng, norm = np.random.default_rng(0), NORMS["patches"]
    kernel = rng.standard_normal(SHAPE)
    problem = Problem.of(kernel / np.sqrt(norm.energy(kernel)), spatial, norm)
    inner = tuple(rng.standard_normal((size, 3)) for size in (SHAPE[1], *spatial))
    point = evaluate(problem, inner, 0.0)
    for _ in range(20):
        outputs = point.factors[0] + 0.01 * rng.standard_normal(point.factors[0].shape)
        assert error(kernel, (outputs, *inner), norm) > point.error
    assert error(kernel, point.factors, norm) == pytest.approx(point.error)


def error(kernel, factors, norm):
    outputs, inputs, *window = factors
    places = window[0] if len(window) == 1 else np.einsum("yr,xr->yxr", *window).reshape(6, -1)
    model = np.einsum("tr,sr,kr->tsk", outputs, inputs, places).reshape(SHAPE)
    size = np.sqrt(norm.energy(kernel))
    return norm.energy(kernel / size - model)


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_unweighing_undoes_weighing(norm):
    rows = flat(np.random.default_rng(0).standard_normal(SHAPE))
    np.testing.assert_allclose(norm.unweigh(norm.weigh(rows)), rows, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_a_reduced_norm_is_that_of_the_kernel_put_in_by_the_basis(norm):
    rng = np.random.default_rng(0)
    small, basis = rng.standard_normal((5, 2, 3, 2)), rng.standard_normal((4, 2))
    large = np.einsum("tjyx,sj->tsyx", small, basis)
    assert norm.reduced(basis).energy(small) == pytest.approx(norm.energy(large))


def test_flat_is_position_major_and_unflat_its_inverse():
    kernel = np.random.default_rng(0).standard_normal(SHAPE)
    assert flat(kernel)[2, 5 * 4 + 3] == kernel[2, 3, 2, 1]
    np.testing.assert_array_equal(unflat(flat(kernel), SHAPE), kernel)
