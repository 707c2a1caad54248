"""CP forms: a dense Y×X convolution as 1×1, depthwise, 1×1.

The kernel is approximated by R separable terms. `cp4` separates the window too,

    K[t, s, y, x]  ≈  Σ_r  outputs[t, r] · inputs[s, r] · vertical[y, r] · horizontal[x, r],

and runs as 1×1 (S→R), depthwise Y×1, depthwise 1×X, 1×1 (R→T): R·(S + Y + X + T)
multiply-adds per output pixel at stride 1 in place of T·S·Y·X. `cp3` keeps the window
whole, window[yx, r], and runs as 1×1, depthwise Y×X, 1×1: R·(S + Y·X + T).

Choose `cp3` for 3×3 windows, where its smaller error at equal time usually wins, and
`cp4` for 5×5 and larger. The stride sits on the depthwise stages, so the first 1×1 runs at
full resolution and strided convolutions gain less.

Sources: `cp4` Lebedev et al. 2015, arXiv:1412.6553; `cp3` Phan et al. 2020, arXiv:2008.05441.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from tensorly.cp_tensor import cp_to_tensor

from onnxcp.conv import Chain, Geometry, Kernel, Stage
from onnxcp.forms.algebra import Factors, Target, positions, sensitivity
from onnxcp.forms.als import Iterates, fit_least_squares
from onnxcp.forms.form import Effort, Fit, Form, Outcome, Shape
from onnxcp.forms.stable import correct

NEGLIGIBLE = 1e-3  # relative error below which calm factors are worth more than exact ones

Bias = Float[np.ndarray, " T"] | None


def _refuses_cp3(shape: Shape) -> str | None:
    if shape[2] * shape[3] == 1:
        return "a 1×1 kernel has no window to separate"
    return None


def _refuses_cp4(shape: Shape) -> str | None:
    if 1 in shape[2:]:
        return f"a {shape[2]}×{shape[3]} window has one side already; use cp3"
    return None


def _merged(shape: Shape) -> tuple[int, ...]:
    return (shape[2] * shape[3],)


def _separate(shape: Shape) -> tuple[int, ...]:
    return shape[2:]


def _draw(sizes: tuple[int, ...], rank: int, rng: np.random.Generator) -> Factors:
    return tuple(rng.standard_normal((size, rank)) for size in sizes)


def _fit(name: str, target: Target, rank: int, rng: np.random.Generator, effort: Effort) -> Fit:
    """Least squares to convergence, then the least sensitivity at that error.

    Works on the tensor scaled to norm one, so that kernels of any scale fit alike.
    """
    start = _draw(target.shape, rank, rng)
    if not target.energy:
        nothing = tuple(np.zeros_like(f) for f in start)
        return Fit(name, nothing, 0.0, 0.0, 0.0, Outcome.CONVERGED, 0)
    norm = np.sqrt(target.energy)
    unit = replace(target, flat=target.flat / norm, energy=1.0)
    rough = fit_least_squares(
        unit, start, sweeps=effort.sweeps, finish=effort.finish, tolerance=effort.tolerance
    )
    calm = _calmed(unit, rough, effort)
    before, factors = _scaled(rough.factors, norm), _scaled(calm.factors, norm)
    return Fit(
        form=name,
        factors=factors,
        error=_relative_error(target, factors),
        sensitivity_before=sensitivity(before),
        sensitivity_after=sensitivity(factors),
        outcome=_outcome(rough, factors),
        sweeps=calm.sweeps,
    )


def _calmed(unit: Target, rough: Iterates, effort: Effort) -> Iterates:
    """The corrected factors; the rough ones where correction is off, finds none better, or
    would start from a diverged fit."""
    if not effort.corrections or not np.isfinite(rough.objective):
        return rough
    calm = correct(
        unit,
        rough.factors,
        bound=max(rough.objective * (1 + effort.slack) ** 2, NEGLIGIBLE**2),
        sweeps=effort.corrections,
        tolerance=10 * effort.tolerance,
    )
    better = calm.objective < sensitivity(rough.factors)
    return replace(calm if better else rough, sweeps=rough.sweeps + calm.sweeps)


def _scaled(factors: Factors, norm: float) -> Factors:
    """The model times `norm`, shared out evenly so that the terms stay balanced."""
    return tuple(f * norm ** (1 / len(factors)) for f in factors)


def _outcome(rough: Iterates, factors: Factors) -> Outcome:
    if not all(np.isfinite(f).all() for f in factors):
        return Outcome.DIVERGED
    return Outcome.CONVERGED if rough.converged else Outcome.SWEEPS_EXHAUSTED


def _relative_error(target: Target, factors: Factors) -> float:
    """‖tensor − model‖ / ‖tensor‖, from the difference itself: exact also where it is tiny."""
    narrow, wide = factors[target.narrow], factors[target.wide]
    window = positions(factors[2:])
    left = 0.0
    planes = target.flat.reshape(len(window), len(narrow), -1)
    for plane, weight in zip(planes, window, strict=True):
        left += float(np.square(plane - (narrow * weight) @ wide.T).sum())
    return float(np.sqrt(left / target.energy))


def _ends(factors: Factors, bias: Bias, middle: tuple[Stage, ...]) -> Chain:
    """The two 1×1 stages around the depthwise ones.

    Only the last stage has a bias. That is why the padding may wait for the depthwise
    stages: a bias-free 1×1 maps zeros to zeros, so padding before or after it is equal.
    """
    return (
        Stage("inputs", factors[1].T[:, :, None, None]),
        *middle,
        Stage("outputs", factors[0][:, :, None, None], bias=bias),
    )


def _stages_cp3(factors: Factors, shape: Shape, geometry: Geometry, bias: Bias) -> Chain:
    rank = factors[0].shape[1]
    window = factors[2].T.reshape(rank, 1, *shape[2:])
    return _ends(factors, bias, (Stage("window", window, geometry, group=rank),))


def _stages_cp4(factors: Factors, shape: Shape, geometry: Geometry, bias: Bias) -> Chain:
    del shape
    rank = factors[0].shape[1]
    (sy, sx), (dy, dx), (top, left, bottom, right) = (
        geometry.strides,
        geometry.dilations,
        geometry.pads,
    )
    down = Geometry((sy, 1), (dy, 1), (top, 0, bottom, 0))
    across = Geometry((1, sx), (1, dx), (0, left, 0, right))
    middle = (
        Stage("vertical", factors[2].T[:, None, :, None], down, group=rank),
        Stage("horizontal", factors[3].T[:, None, None, :], across, group=rank),
    )
    return _ends(factors, bias, middle)


def _form(
    name: str,
    summary: str,
    refuses: Callable[[Shape], str | None],
    spatial: Callable[[Shape], tuple[int, ...]],
    stages: Callable[[Factors, Shape, Geometry, Bias], Chain],
) -> Form:
    def draw(shape: Shape, rank: int, rng: np.random.Generator) -> Factors:
        return _draw((*shape[:2], *spatial(shape)), rank, rng)

    def fit(kernel: Kernel, rank: int, rng: np.random.Generator, effort: Effort) -> Fit:
        target = Target.of(kernel, spatial(_shape(kernel)))
        return _fit(name, target, rank, rng, effort)

    def reconstruct(factors: Factors, shape: Shape) -> Kernel:
        dense: Kernel = cp_to_tensor((None, list(factors))).reshape(shape)
        return dense

    return Form(name, summary, refuses, draw, fit, stages, reconstruct)


def _shape(kernel: Kernel) -> Shape:
    outputs, inputs, height, width = kernel.shape
    return outputs, inputs, height, width


CP4 = _form("cp4", "1×1, Y×1, 1×X, 1×1", _refuses_cp4, _separate, _stages_cp4)
CP3 = _form("cp3", "1×1, Y×X, 1×1", _refuses_cp3, _merged, _stages_cp3)
