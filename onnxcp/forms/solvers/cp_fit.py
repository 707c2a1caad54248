"""CP factors of a kernel in a norm: least squares, then the least sensitive at that error."""

from dataclasses import replace

import numpy as np

from onnxcp.chain import Kernel, Sizes
from onnxcp.forms.fit import Solution, scaled_evenly
from onnxcp.forms.solvers import device as devices
from onnxcp.forms.solvers.cp_algebra import Factors, Target, dense, sensitivity
from onnxcp.forms.solvers.cp_als import Iterates, fit_least_squares, refine
from onnxcp.forms.solvers.cp_epc import correct
from onnxcp.forms.solvers.cp_weighted import polish
from onnxcp.forms.solvers.effort import DRAFT, Effort
from onnxcp.forms.solvers.norm import Norm, relative_error, roots

GROWTH = 0.3  # size of the entries of new terms, of that of the old ones
NEARLY_EXACT = 1e-4  # relative error of factors that may be exact: sweeps resolve 1e-6 to 1e-8


def solve_cp(
    unit: Kernel, spatial: Sizes, norm: Norm | None, start: Factors, effort: Effort, *, warm: bool
) -> Solution:
    """CP factors in a norm from `start`, which a warm start takes as it is."""
    if norm is None:
        target = Target.of(unit, spatial, devices.named(effort.device))
        rough, stable = _fit_plain(target, start, effort)
        converged = rough.converged
    else:
        rough, stable = _fit_weighted(unit, spatial, norm, start, effort, warm=warm)
        converged = stable.converged
    factors = stable.factors
    if relative_error(unit, dense(factors, unit.shape), norm) < NEARLY_EXACT:
        factors = refine(unit, factors, spatial)
    return Solution(rough.factors, factors, stable.sweeps, converged, not effort.corrections)


def grown(start: tuple[np.ndarray, ...], drawn: tuple[np.ndarray, ...]) -> Factors:
    """Factors with small random terms after their own, as many as `drawn` has more."""
    own = start[0].shape[1]
    grown = []
    for mine, new in zip(start, drawn, strict=True):
        size = float(np.linalg.norm(mine)) / np.sqrt(mine.size)
        grown.append(np.concatenate([mine, GROWTH * size * new[:, own:]], axis=1))
    return tuple(grown)


def _fit_plain(target: Target, start: Factors, effort: Effort) -> tuple[Iterates, Iterates]:
    """Least squares to convergence, and the least sensitivity at that error.

    Works on the tensor scaled to norm one, so that kernels of any scale fit alike.
    """
    size, unit = float(np.sqrt(target.energy)), target.unit()
    rough = fit_least_squares(
        unit,
        scaled_evenly(start, 1 / size),
        sweeps=effort.sweeps,
        finish=effort.finish,
        tolerance=effort.tolerance,
    )
    stable = _stabilized(unit, rough, effort)
    return (
        replace(rough, factors=scaled_evenly(rough.factors, size)),
        replace(stable, factors=scaled_evenly(stable.factors, size)),
    )


def _stabilized(unit: Target, rough: Iterates, effort: Effort) -> Iterates:
    """The corrected factors; the rough ones where correction is off, finds none better, or
    would start from a diverged fit."""
    if not effort.corrections or not np.isfinite(rough.objective):
        return rough
    stable = correct(
        unit,
        rough.factors,
        bound=max(rough.objective * (1 + effort.slack) ** 2, effort.floor**2),
        sweeps=effort.corrections,
        tolerance=10 * effort.tolerance,
    )
    better = stable.objective < sensitivity(rough.factors)
    return replace(stable if better else rough, sweeps=rough.sweeps + stable.sweeps)


def _fit_weighted(
    kernel: Kernel, spatial: Sizes, norm: Norm, start: Factors, effort: Effort, *, warm: bool
) -> tuple[Iterates, Iterates]:
    """Every factor under the whole norm, sensitivity weighed in; unless `warm`, after a quick
    plain fit from `start` of the kernel whitened by the covariance of its input channels."""
    if not warm:
        root, inverse = roots(norm.channels(kernel.shape[1]))
        white = np.einsum("ts...,sz->tz...", kernel, root)
        target = Target.of(white, spatial, devices.named(effort.device))
        begin = (start[0], root @ start[1], *start[2:])
        outputs, inputs, *window = _fit_plain(target, begin, DRAFT)[0].factors
        start = (outputs, inverse @ inputs, *window)
    return polish(kernel, spatial, norm, start, effort)
