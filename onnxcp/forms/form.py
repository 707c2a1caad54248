"""What a form is, and what a fit returns.

A form approximates a kernel by factors and says which chain of convolutions computes with
them. It knows nothing of ONNX, runtimes or data.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from onnxcp.chain import Chain, Geometry, Kernel
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


@dataclass(frozen=True, slots=True)
class Form:
    """One row of `FORMS`.

    `refuses(shape)` gives the reason why a kernel has no such chain, or None.
    `draw(shape, rank, rng)` gives random factors: a start for a fit, or a chain to time.
    `fit(kernel, rank, norm, rng, effort, start)` fits them, in the plain norm for None; from
    `start`, factors of this rank or a smaller one, where there are any.
    `stages(factors, shape, geometry)` is the chain, without bias; `reconstruct(factors,
    shape)` the dense kernel that the chain stands for. Shapes and strides have as many
    dimensions as the window: the depthwise or dense stages carry them.
    `sensitivity(factors)` is the expected squared change of that kernel per unit variance of
    noise on the factors; `largest(shape)` the rank beyond which more has no use.
    """

    name: str
    summary: str
    refuses: Callable[[Shape], str | None]
    draw: Callable[[Shape, int, np.random.Generator], Factors]
    fit: Callable[[Kernel, int, Norm | None, np.random.Generator, Effort, Factors | None], Fit] = (
        field(repr=False)
    )
    stages: Callable[[Factors, Shape, Geometry], Chain]
    reconstruct: Callable[[Factors, Shape], Kernel]
    sensitivity: Callable[[Factors], float]
    largest: Callable[[Shape], int]
