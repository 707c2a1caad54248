"""Alternating least squares for CP, extrapolated, and run until it has converged.

One `sweep` solves for every mode in turn, whatever rule solves a mode: plain least
squares here, least sensitivity in `stable`. Between sweeps the factors are extrapolated
along their last change (Nesterov's weights, restarted when the objective rises: Mitchell,
Ye & De Sterck, Numer. Linear Algebra Appl. 27(4), 2020), which reaches in 200 sweeps an
error that plain sweeps miss after 1000 on the convolution kernels tried.

Axes and modes are those of `algebra`: factors are ordered (T, S, *spatial).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxcp.arrays import Float
from onnxcp.chain import Kernel, Sizes
from onnxcp.forms.solvers.cp_algebra import (
    Factors,
    Gram,
    Matrix,
    Target,
    balance,
    column_energy,
    dense,
    double,
    grams_except,
    positions,
    single,
    spatial_mode,
    squared_error,
)

Energy = Float[np.ndarray, "modes R"]
SolveMode = Callable[[int, Matrix, Gram, Energy], Matrix]
"""(mode, MTTKRP, normal matrix, ‖column‖² of all modes) -> the mode's new factor."""

RIDGE = 1e-12  # on a normal matrix of unit diagonal: far below what a fit resolves
WINDOW = 10  # sweeps over which progress is judged
ROUNDS, CORRECTIONS, LSMR_STEPS = 4, 5, 50  # of `refine`: at most; sweeps and steps in each
EXACT = 1e-13  # relative error that is rounding alone


@dataclass(frozen=True, slots=True, eq=False)
class Iterates:
    """Where a run of sweeps ended."""

    factors: Factors
    objective: float
    sweeps: int
    converged: bool


def least_squares(
    mode: int, product: Matrix, normal: Gram, energy: Energy, ridge: float = RIDGE
) -> Matrix:
    """The factor minimising ‖tensor − model‖² with the other modes held; NaN if the normal
    matrix is not finite, which ends the fit as diverged."""
    del mode, energy
    return solver(normal, ridge)(product)


def solver(normal: Gram, ridge: float) -> Callable[[Matrix], Matrix]:
    """product -> product · normal⁻¹, by Cholesky of the matrix scaled to unit diagonal.

    The ridge grows until collinear terms are parted; NaN where the matrix is not finite.
    """
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    scale = np.sqrt(np.diag(normal))
    scale = np.where(scale > 0, scale, 1.0)
    scaled = normal / scale / scale[:, None]
    factor = np.full_like(scaled, np.nan), False
    while ridge < 1:
        scaled[np.diag_indices_from(scaled)] += ridge
        try:
            factor = cho_factor(scaled, overwrite_a=False, check_finite=False)
            break
        except LinAlgError:
            ridge *= 100

    def solve(product: Matrix) -> Matrix:
        solved: Matrix = cho_solve(factor, (product / scale).T, check_finite=False).T / scale
        return solved

    return solve


def refine(kernel: Kernel, factors: Factors, spatial: Sizes) -> Factors:
    """Nearly exact factors, made exact where they can be, from what is left of the kernel itself.

    The squared error of a sweep hides what is below 1e-8 of the kernel in its rounding; the
    difference from the kernel does not. Alternating corrections do most of it; where terms are
    alike they crawl, and a Gauss-Newton step in all modes at once does not. Never worse than
    what it was given.
    """
    best, least = factors, _distance(kernel, factors)
    enough = EXACT * float(np.linalg.norm(kernel))
    for _ in range(ROUNDS):
        for step in (_alternating_steps, _newton_step):
            moved = step(kernel, best, spatial)
            error = _distance(kernel, moved)
            if error < least:
                best, least = moved, error
            if least <= enough:
                return best
    return best


def _distance(kernel: Kernel, factors: Factors) -> float:
    return float(np.linalg.norm(kernel - dense(factors, kernel.shape)))


def _alternating_steps(kernel: Kernel, factors: Factors, spatial: Sizes) -> Factors:
    """Sweeps that correct one factor after the other."""
    modes = list(factors)
    for _ in range(CORRECTIONS):
        for mode in range(len(modes)):
            left = kernel - dense(modes, kernel.shape)
            product = mttkrp(Target.of(left, spatial), modes, mode)
            normal = grams_except([f.T @ f for f in modes], mode)
            modes[mode] = modes[mode] + least_squares(mode, product, normal, column_energy(modes))
    return balance(modes)


def _newton_step(kernel: Kernel, factors: Factors, spatial: Sizes) -> Factors:
    """All factors changed at once by the smallest step that makes up for what is left, to first
    order; by LSMR, which does not square the condition of the problem.

    Source: Fong & Saunders, SIAM J. Sci. Comput. 33(5), 2011.
    """
    from scipy.sparse.linalg import LinearOperator, lsmr

    modes, ends = range(len(factors)), np.cumsum([f.size for f in factors])[:-1]

    def parts(step: np.ndarray) -> Factors:
        pieces = np.split(step.ravel(), ends)
        return tuple(p.reshape(f.shape) for p, f in zip(pieces, factors, strict=True))

    def forward(step: np.ndarray) -> np.ndarray:
        changed = parts(step)
        made = [dense((*factors[:m], changed[m], *factors[m + 1 :]), kernel.shape) for m in modes]
        return np.asarray(sum(made)).ravel()

    def backward(change: np.ndarray) -> np.ndarray:
        target = Target.of(change.reshape(kernel.shape), spatial)
        return np.concatenate([mttkrp(target, factors, mode).ravel() for mode in modes])

    left = (kernel - dense(factors, kernel.shape)).ravel()
    shape = (left.size, sum(f.size for f in factors))
    jacobian = LinearOperator(shape, forward, backward, dtype=np.float64)
    step = lsmr(jacobian, left, atol=0, btol=0, conlim=0, maxiter=LSMR_STEPS)[0]
    return balance(tuple(f + s for f, s in zip(factors, parts(step), strict=True)))


def mttkrp(target: Target, factors: Sequence[Matrix], mode: int) -> Matrix:
    """The tensor contracted with every factor but one mode's, term by term."""
    places = positions(factors[2:])
    if mode == target.wide:
        return target.wide_product(factors[target.narrow], places)
    carried = target.carry(factors[target.wide])
    if mode == target.narrow:
        return carried.narrow_product(places)
    return spatial_mode(carried.spatial_product(factors[target.narrow]), factors[2:], mode - 2)


def sweep(target: Target, factors: Factors, solve: SolveMode) -> tuple[Factors, float]:
    """Solve for every mode once; returns the balanced factors and ‖tensor − model‖².

    Order: spatial modes, smaller channel mode, larger channel mode, because that is the
    order in which the two large products become available.
    """
    modes, narrow, wide = list(factors), target.narrow, target.wide
    grams = [f.T @ f for f in modes]
    energy = column_energy(modes)

    def update(mode: int, product: Matrix) -> None:
        modes[mode] = solve(mode, product, grams_except(grams, mode), energy)
        grams[mode] = modes[mode].T @ modes[mode]
        energy[mode] = np.diag(grams[mode])

    carried = target.carry(modes[wide])
    contracted = carried.spatial_product(modes[narrow])
    for mode in range(2, len(modes)):
        update(mode, spatial_mode(contracted, modes[2:], mode - 2))
    update(narrow, carried.narrow_product(positions(modes[2:])))
    product = target.wide_product(modes[narrow], positions(modes[2:]))
    update(wide, product)
    error = squared_error(target, product, modes[wide], grams_except(grams, wide))
    return balance(modes), error


def extrapolated(
    step: Callable[[Factors], tuple[Factors, float]],
    start: Factors,
    *,
    sweeps: int,
    tolerance: float,
) -> Iterates:
    """Repeat `step` from extrapolated points, never keeping one that raises its objective.

    Converged when the objective fell by less than `tolerance` of itself over the last
    `WINDOW` sweeps, or when even a step from the best point does not lower it.
    """
    best, objective = step(start)
    point, momentum = best, 1.0
    fresh, history = True, [objective]
    for used in range(2, sweeps + 1):
        new, value = step(point)
        if value <= objective:
            momentum, weight = next_momentum(momentum)
            point = extrapolate(new, best, weight)
            best, objective, fresh = new, value, False
        elif fresh or not math.isfinite(objective):
            return Iterates(best, objective, used, math.isfinite(objective))
        else:
            point, momentum, fresh = best, 1.0, True
        history.append(objective)
        if used > WINDOW and history[-WINDOW - 1] - objective <= tolerance * objective:
            return Iterates(best, objective, used, True)
    return Iterates(best, objective, sweeps, False)


def next_momentum(momentum: float) -> tuple[float, float]:
    """Nesterov's sequence: the next momentum, and the weight of the last change."""
    following = (1 + float(np.sqrt(1 + 4 * momentum**2))) / 2
    return following, (momentum - 1) / following


def extrapolate(new: Factors, old: Factors, weight: float) -> Factors:
    """`new`, moved on by `weight` times its change from `old`."""
    return tuple(n + weight * (n - o) for n, o in zip(new, old, strict=True))


def fit_least_squares(
    target: Target, start: Factors, *, sweeps: int, finish: int, tolerance: float
) -> Iterates:
    """Least-squares CP factors from `start`; the objective is ‖tensor − model‖².

    At most `sweeps` in single precision, at half the cost and with the same course as far
    as it resolves, then at most `finish` in double precision.
    """
    rough = _swept(target.single(), single(balance(start)), sweeps, tolerance)
    factors = double(rough.factors)
    if not finish:
        return replace(rough, factors=factors)
    fine = _swept(target, factors, finish, tolerance)
    return replace(fine, sweeps=rough.sweeps + fine.sweeps)


def _swept(target: Target, start: Factors, sweeps: int, tolerance: float) -> Iterates:
    return extrapolated(
        lambda factors: sweep(target, factors, least_squares),
        start,
        sweeps=sweeps,
        tolerance=tolerance,
    )
