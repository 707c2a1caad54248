"""What a fit is asked, what a solver answers, and what the fit returns."""

import enum
from dataclasses import dataclass

import numpy as np

from onnxcp.chain import Kernel
from onnxcp.forms.solvers.effort import Effort
from onnxcp.forms.solvers.norm import Norm

Shape = tuple[int, ...]  # T, S, then the window: Y, X in two dimensions
Factors = tuple[np.ndarray, ...]  # what a form is made of: matrices mostly, or a core tensor


class Outcome(enum.Enum):
    """How a fit ended; the value is what the report says of it."""

    CONVERGED = "converged"
    SWEEPS_EXHAUSTED = "stopped at the sweep limit; a little more accuracy is left in this rank"
    DIVERGED = "not finite, or not to be computed with: refused; try a lower rank"
    DEGENERATE = (
        "has large terms that cancel each other, which no precision below double can hold: "
        "refused; try svd or another rank"
    )

    @property
    def is_usable(self) -> bool:
        """Whether a chain may be made of the factors."""
        return self not in (Outcome.DIVERGED, Outcome.DEGENERATE)


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Factors of one kernel, and how good they are.

    `error` is ‖K − K̂‖ / ‖K‖ in the norm of the fit. Sensitivities are expected squared
    changes of the kernel per unit variance of noise on the factors: of the least-squares
    factors (before) and of these (after).
    """

    form: str
    factors: Factors
    error: float
    sensitivity_before: float
    sensitivity_after: float
    outcome: Outcome
    sweeps: int


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A kernel to approximate, scaled so that its largest entry is one.

    `scale` is what it was divided by; `norm` the norm of the error, the plain one for None.
    `drawn` are random factors of the rank. `start` are factors to start from, at the scale of
    the kernel itself, where there are any: of this rank or a smaller one.
    """

    unit: Kernel
    scale: float
    rank: int
    norm: Norm | None
    effort: Effort
    drawn: Factors
    start: Factors | None


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Factors of the unit kernel: those of least error, and the least sensitive ones at about
    that error. A draft has not looked for the second, and they are the first."""

    least_squares: Factors
    stable: Factors
    sweeps: int
    converged: bool
    is_draft: bool = False


def scaled_evenly(factors: Factors, by: float) -> Factors:
    """A scale shared out evenly, so that balanced factors stay balanced."""
    return tuple(f * by ** (1 / len(factors)) for f in factors)
