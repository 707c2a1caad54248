"""What the fits of every form share: kernels of any scale fit alike, and a fit says how good
it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxcp.chain import Kernel
from onnxcp.forms.form import Factors, Fit, Outcome, Shape
from onnxcp.forms.solvers.norm import Norm, relative_error

ROUNDING_LIMIT = 1e-5
"""Of the kernel: what storing its factors in single precision may change. Some 1e-7 is usual;
at this limit half precision, 2¹³ times as coarse, changes 8 per cent."""
WIDEST_SCALE = 1e50  # of a kernel: sensitivity is of the fourth power of its factors


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Factors of a kernel whose largest entry is one: those of least error, and the calm ones,
    which a draft does not have."""

    rough: Factors
    calm: Factors
    sweeps: int
    converged: bool
    is_draft: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """How the factors of a form behave.

    `balance` gives the factors of least sensitivity that make the same kernel, as far as
    the form can tell; `scale(factors, by)` makes the kernel `by` times as large.
    """

    reconstruct: Callable[[Factors, Shape], Kernel]
    sensitivity: Callable[[Factors], float]
    balance: Callable[[Factors], Factors]
    scale: Callable[[Factors, float], Factors]


def shared(factors: Factors, by: float) -> Factors:
    """A scale shared out evenly, so that balanced factors stay balanced."""
    return tuple(f * by ** (1 / len(factors)) for f in factors)


def fit_unit(
    name: str,
    kernel: Kernel,
    norm: Norm | None,
    start: Factors,
    rules: Rules,
    solve: Callable[[Kernel, float], Found],
) -> Fit:
    """The fit that `solve` makes of the kernel at unit scale, and of the scale it is told.

    `start` gives the shapes of the factors of a kernel that has none: zero, not finite, or of
    a scale whose squares are not.
    """
    largest = float(np.abs(kernel).max())
    if not largest:
        nothing = tuple(np.zeros_like(f) for f in start)
        return Fit(name, nothing, 0.0, 0.0, 0.0, Outcome.CONVERGED, 0)
    if not 1 / WIDEST_SCALE < largest < WIDEST_SCALE:
        lost = tuple(np.full_like(f, np.nan) for f in start)
        return Fit(name, lost, np.nan, np.nan, np.nan, Outcome.DIVERGED, 0)
    unit = kernel.astype(np.float64) / largest
    found = solve(unit, largest)
    before = rules.scale(found.rough, largest)
    factors = rules.balance(rules.scale(found.calm, largest))
    outcome = _outcome(factors, found.converged)
    if outcome.is_usable and not found.is_draft and _cancels(found.calm, unit, rules):
        outcome = Outcome.DEGENERATE
    return Fit(
        form=name,
        factors=factors,
        error=relative_error(unit, rules.reconstruct(found.calm, kernel.shape), norm),
        sensitivity_before=rules.sensitivity(before),
        sensitivity_after=rules.sensitivity(factors),
        outcome=outcome,
        sweeps=found.sweeps,
    )


def _outcome(factors: Factors, converged: bool) -> Outcome:
    if not all(np.isfinite(f).all() for f in factors):
        return Outcome.DIVERGED
    return Outcome.CONVERGED if converged else Outcome.SWEEPS_EXHAUSTED


def _cancels(factors: Factors, unit: Kernel, rules: Rules) -> bool:
    """Whether terms are so much larger than their sum that rounding them changes the kernel."""
    stored = tuple(f.astype(np.float32).astype(np.float64) for f in factors)
    shape = unit.shape
    change = np.linalg.norm(rules.reconstruct(stored, shape) - rules.reconstruct(factors, shape))
    return bool(change > ROUNDING_LIMIT * np.linalg.norm(unit))
