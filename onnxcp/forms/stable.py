"""Error-preserving correction: the least sensitive factors at an error already reached.

Least squares drives CP terms of convolution kernels towards huge ones that cancel. Among
all factors of nearly the same error this finds those of least sensitivity,

    minimise  sensitivity(factors)   subject to  ‖tensor − model‖² ≤ δ²,

mode by mode. With the other modes held, sensitivity is const + Σ_r w_r ‖a_r‖² in the
columns of one factor, so that each mode is a ridge regression whose ridge μ is the root
of one monotone scalar equation. Between sweeps the factors are extrapolated like those of
`als`, which on convolution kernels lowers sensitivity 2-8 times further in as many sweeps.

Sources: Phan, Tichavský & Cichocki, IEEE TSP 67(5), 2019, for the idea with the norms of
the terms; Phan et al. 2020, arXiv:2008.05441, for sensitivity in their place.
"""

import numpy as np
from jaxtyping import Float64
from scipy.optimize import brentq

from onnxcp.forms.algebra import (
    Factors,
    Gram,
    Matrix,
    Target,
    sensitivity,
)
from onnxcp.forms.als import Energy, Iterates, SolveMode, extrapolated, sweep

SLACK = 1e-6  # relative, on δ²: what rounding may add to an error that sits on its bound
LEAST_RIDGE, MOST_RIDGE = 1e-13, 1e13  # relative to the largest eigenvalue


def weights(sizes: tuple[int, ...], energy: Energy, mode: int) -> Float64[np.ndarray, " R"]:
    """w of `sensitivity = const + Σ_r w_r ‖column r of mode‖²`."""
    total = np.zeros(energy.shape[1])
    for other, size in enumerate(sizes):
        if other != mode:
            total += size * np.delete(energy, (mode, other), axis=0).prod(axis=0)
    return total


def least_sensitive(
    product: Matrix, normal: Gram, weight: Float64[np.ndarray, " R"], energy: float, bound: float
) -> Matrix:
    """argmin Σ_r w_r ‖a_r‖² with ‖tensor − model‖² ≤ `bound`, for one mode's factor.

    In columns scaled by √w it is plain ridge regression; the eigenvectors of the scaled
    normal matrix make the residual a sum over r, with σ_r the eigenvalues and g_r the
    rotated MTTKRP:  ‖tensor‖² − Σ_r ‖g_r‖² (σ_r + 2μ) / (σ_r + μ)².  Where no μ meets the
    bound the least-squares end of the path is returned.
    """
    root = np.sqrt(np.where(weight > 0, weight, 1.0))
    values, vectors = np.linalg.eigh(normal / root / root[:, None])
    values = np.maximum(values, 0.0)
    rotated = (product / root) @ vectors
    power = np.einsum("ir,ir->r", rotated, rotated)

    def excess(log_ridge: float) -> float:
        ridge = np.exp(log_ridge)
        return float(energy - np.sum(power * (values + 2 * ridge) / (values + ridge) ** 2) - bound)

    largest = max(values[-1], np.finfo(np.float64).tiny / LEAST_RIDGE)
    low, high = np.log(largest * LEAST_RIDGE), np.log(largest * MOST_RIDGE)
    if excess(low) >= 0:
        ridge = np.exp(low)
    elif excess(high) <= 0:
        ridge = np.exp(high)
    else:
        ridge = np.exp(brentq(excess, low, high, xtol=1e-8))
    solved: Matrix = (rotated / (values + ridge)) @ vectors.T / root
    return solved


def correct(
    target: Target, factors: Factors, *, bound: float, sweeps: int, tolerance: float
) -> Iterates:
    """Lower the sensitivity of `factors` while ‖tensor − model‖² stays within `bound`.

    The objective of the result is its sensitivity; infinite if no sweep met the bound.
    """
    sizes = target.shape

    def solve(mode: int, product: Matrix, normal: Gram, energy: Energy) -> Matrix:
        weight = weights(sizes, energy, mode)
        return least_sensitive(product, normal, weight, target.energy, bound)

    def step(point: Factors) -> tuple[Factors, float]:
        rule: SolveMode = solve
        moved, error = sweep(target, point, rule)
        return moved, sensitivity(moved) if error <= bound * (1 + SLACK) else np.inf

    return extrapolated(step, factors, sweeps=sweeps, tolerance=tolerance)
