"""CP forms: a dense convolution as 1×1, depthwise, 1×1.

The kernel is approximated by R separable terms. `cp4` separates the window too,

    K[t, s, y, x]  ≈  Σ_r  outputs[t, r] · inputs[s, r] · vertical[y, r] · horizontal[x, r],

and runs as 1×1 (S→R), depthwise Y×1, depthwise 1×X, 1×1 (R→T): R·(S + Y + X + T)
multiply-adds per output pixel at stride 1 in place of T·S·Y·X. `cp3` keeps the window
whole, window[yx, r], and runs as 1×1, depthwise Y×X, 1×1: R·(S + Y·X + T). Windows of one
or three dimensions are treated alike.

Choose `cp3` for 3×3 windows, where its smaller error at equal time usually wins, and
`cp4` for 5×5 and larger. The stride sits on the depthwise stages, so the first 1×1 runs at
full resolution and strided convolutions gain less.

Sources: `cp4` Lebedev et al. 2015, arXiv:1412.6553; `cp3` Phan et al. 2020, arXiv:2008.05441.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from onnxcp.chain import Chain, Geometry, Kernel, Sizes, Stage, pointwise
from onnxcp.forms.form import Fit, Form, Shape
from onnxcp.forms.solvers import device as devices
from onnxcp.forms.solvers.cp_algebra import Factors, Target, balance, dense, sensitivity
from onnxcp.forms.solvers.cp_als import Iterates, fit_least_squares, refine
from onnxcp.forms.solvers.cp_epc import correct
from onnxcp.forms.solvers.cp_weighted import polish
from onnxcp.forms.solvers.effort import DRAFT, Effort
from onnxcp.forms.solvers.norm import Norm, relative_error, roots
from onnxcp.forms.unit import Found, Rules, fit_unit, shared

GROWTH = 0.3  # size of the entries of new terms, of that of the old ones
NEARLY_EXACT = 1e-4  # relative error of factors that may be exact: sweeps resolve 1e-6 to 1e-8
SIDES = ("vertical", "horizontal", "deep")  # role of the stage along each window dimension


def _refuses_cp3(shape: Shape) -> str | None:
    if math.prod(shape[2:]) == 1:
        return "a 1×1 kernel has no window to separate"
    return None


def _refuses_cp4(shape: Shape) -> str | None:
    if math.prod(shape[2:]) == 1:
        return _refuses_cp3(shape)
    if len([size for size in shape[2:] if size > 1]) < 2:
        return f"a {'×'.join(map(str, shape[2:]))} window has one side already; use cp3"
    return None


def largest(shape: Shape) -> int:
    """The rank at which every kernel can be written: a term for each pair of what is not the
    larger channel mode."""
    return math.prod(shape) // max(shape[:2])


def _merged(shape: Shape) -> Sizes:
    return (math.prod(shape[2:]),)


def _separate(shape: Shape) -> Sizes:
    return shape[2:]


def _draw(sizes: tuple[int, ...], rank: int, rng: np.random.Generator) -> Factors:
    return tuple(rng.standard_normal((size, rank)) for size in sizes)


def fit_plain(target: Target, start: Factors, effort: Effort) -> tuple[Iterates, Iterates]:
    """Least squares to convergence, and the least sensitivity at that error.

    Works on the tensor scaled to norm one, so that kernels of any scale fit alike.
    """
    size, unit = float(np.sqrt(target.energy)), target.unit()
    rough = fit_least_squares(
        unit,
        shared(start, 1 / size),
        sweeps=effort.sweeps,
        finish=effort.finish,
        tolerance=effort.tolerance,
    )
    calm = _calmed(unit, rough, effort)
    return (
        replace(rough, factors=shared(rough.factors, size)),
        replace(calm, factors=shared(calm.factors, size)),
    )


def _grown(start: tuple[np.ndarray, ...], drawn: tuple[np.ndarray, ...]) -> Factors:
    """Factors with small random terms after their own, as many as `drawn` has more."""
    own = start[0].shape[1]
    grown = []
    for mine, new in zip(start, drawn, strict=True):
        size = float(np.linalg.norm(mine)) / np.sqrt(mine.size)
        grown.append(np.concatenate([mine, GROWTH * size * new[:, own:]], axis=1))
    return tuple(grown)


def _calmed(unit: Target, rough: Iterates, effort: Effort) -> Iterates:
    """The corrected factors; the rough ones where correction is off, finds none better, or
    would start from a diverged fit."""
    if not effort.corrections or not np.isfinite(rough.objective):
        return rough
    calm = correct(
        unit,
        rough.factors,
        bound=max(rough.objective * (1 + effort.slack) ** 2, effort.floor**2),
        sweeps=effort.corrections,
        tolerance=10 * effort.tolerance,
    )
    better = calm.objective < sensitivity(rough.factors)
    return replace(calm if better else rough, sweeps=rough.sweeps + calm.sweeps)


def fit_weighted(
    kernel: Kernel, spatial: Sizes, norm: Norm, start: Factors, effort: Effort, *, warm: bool
) -> tuple[Iterates, Iterates]:
    """Every factor under the whole norm, sensitivity weighed in; unless `warm`, after a quick
    plain fit from `start` of the kernel whitened by the covariance of its input channels."""
    if not warm:
        root, inverse = roots(norm.channels(kernel.shape[1]))
        white = np.einsum("ts...,sz->tz...", kernel, root)
        target = Target.of(white, spatial, devices.named(effort.device))
        begin = (start[0], root @ start[1], *start[2:])
        outputs, inputs, *window = fit_plain(target, begin, DRAFT)[0].factors
        start = (outputs, inverse @ inputs, *window)
    return polish(kernel, spatial, norm, start, effort)


def solve_cp(
    unit: Kernel, spatial: Sizes, norm: Norm | None, start: Factors, effort: Effort, *, warm: bool
) -> Found:
    """CP factors in a norm from `start`, which a warm start takes as it is."""
    if norm is None:
        target = Target.of(unit, spatial, devices.named(effort.device))
        rough, calm = fit_plain(target, start, effort)
        converged = rough.converged
    else:
        rough, calm = fit_weighted(unit, spatial, norm, start, effort, warm=warm)
        converged = calm.converged
    factors = calm.factors
    if relative_error(unit, dense(factors, unit.shape), norm) < NEARLY_EXACT:
        factors = refine(unit, factors, spatial)
    return Found(rough.factors, factors, calm.sweeps, converged, not effort.corrections)


def _ends(factors: Factors, middle: tuple[Stage, ...]) -> Chain:
    """The two 1×1 stages around the depthwise ones."""
    dimensions = middle[0].geometry.dimensions
    return (
        pointwise("inputs", factors[1].T, dimensions),
        *middle,
        pointwise("outputs", factors[0], dimensions),
    )


def _stages_cp3(factors: Factors, shape: Shape, geometry: Geometry) -> Chain:
    rank = factors[0].shape[1]
    window = factors[2].T.reshape(rank, 1, *shape[2:])
    return _ends(factors, (Stage("window", window, geometry, group=rank),))


def _stages_cp4(factors: Factors, shape: Shape, geometry: Geometry) -> Chain:
    rank, count = factors[0].shape[1], len(shape) - 2
    middle = []
    for at, side in enumerate(factors[2:]):
        window = side.T.reshape(rank, 1, *(len(side) if k == at else 1 for k in range(count)))
        middle.append(Stage(SIDES[at], window, geometry.along(at), group=rank))
    return _ends(factors, tuple(middle))


RULES = Rules(dense, sensitivity, balance, shared)


def _form(
    name: str,
    summary: str,
    refuses: Callable[[Shape], str | None],
    spatial: Callable[[Shape], Sizes],
    stages: Callable[[Factors, Shape, Geometry], Chain],
) -> Form:
    def draw(shape: Shape, rank: int, rng: np.random.Generator) -> Factors:
        return _draw((*shape[:2], *spatial(shape)), rank, rng)

    def fit(
        kernel: Kernel,
        rank: int,
        norm: Norm | None,
        rng: np.random.Generator,
        effort: Effort,
        start: Factors | None = None,
    ) -> Fit:
        drawn = draw(kernel.shape, rank, rng)
        begin = drawn if start is None else _grown(start, drawn)
        is_whole = start is not None and start[0].shape[1] == rank

        def solve(unit: Kernel, scale: float) -> Found:
            first = begin if start is None else shared(begin, 1 / scale)
            sizes = spatial(kernel.shape)
            return solve_cp(unit, sizes, norm, first, effort, warm=is_whole)

        return fit_unit(name, kernel, norm, begin, RULES, solve)

    return Form(name, summary, refuses, draw, fit, stages, dense, sensitivity, largest)


CP4 = _form("cp4", "1×1, Y×1, 1×X, 1×1", _refuses_cp4, _separate, _stages_cp4)
CP3 = _form("cp3", "1×1, Y×X, 1×1", _refuses_cp3, _merged, _stages_cp3)
