"""What a form is, and what a fit returns.

A form approximates a kernel by factors and says which chain of convolutions computes with
them. It knows nothing of ONNX, runtimes or data.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from onnxcp.conv import Chain, Geometry, Kernel
from onnxcp.forms.algebra import Factors

Shape = tuple[int, int, int, int]  # T, S, Y, X


class Outcome(enum.Enum):
    """How a fit ended; the value is what the report says of it."""

    CONVERGED = "converged"
    SWEEPS_EXHAUSTED = "stopped at the sweep limit; a little more accuracy is left in this rank"
    DIVERGED = "not finite: refused; try a lower rank"


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Factors of one kernel, and how good they are.

    `error` is ‖K − K̂‖ / ‖K‖. Sensitivities are those of `algebra.sensitivity` after the
    best rescaling: of the least-squares factors (before) and of these (after).
    """

    form: str
    factors: Factors
    error: float
    sensitivity_before: float
    sensitivity_after: float
    outcome: Outcome
    sweeps: int

    @property
    def rank(self) -> int:
        return int(self.factors[0].shape[1])


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard a fit tries: sweeps at most, and the progress below which it has converged."""

    sweeps: int = 500  # in single precision
    finish: int = 300  # in double precision, from there
    corrections: int = 200  # 0: none, for a draft whose error alone matters
    tolerance: float = 1e-3  # relative fall of the objective over `als.WINDOW` sweeps
    slack: float = 0.01  # error given up for less sensitivity, relative to the error reached


DRAFT = Effort(sweeps=60, finish=0, corrections=0)
"""Enough to compare ranks by: within a few per cent of the converged error."""


@dataclass(frozen=True, slots=True)
class Form:
    """One row of `FORMS`.

    `refuses(shape)` gives the reason why a kernel has no such chain, or None.
    `draw(shape, rank, rng)` gives random factors: a start for a fit, or a chain to time.
    `stages(factors, shape, geometry, bias)` is the chain; `reconstruct(factors, shape)` the
    dense kernel that the chain stands for.
    """

    name: str
    summary: str
    refuses: Callable[[Shape], str | None]
    draw: Callable[[Shape, int, np.random.Generator], Factors]
    fit: Callable[[Kernel, int, np.random.Generator, Effort], Fit]
    stages: Callable[[Factors, Shape, Geometry, Float[np.ndarray, " T"] | None], Chain]
    reconstruct: Callable[[Factors, Shape], Kernel]
