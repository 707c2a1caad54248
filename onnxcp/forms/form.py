"""A form: a way to write a kernel as factors, and the chain of convolutions that computes with
them.

A form is a class with named methods; it says what is its own, and `fit` is the same for all:
kernels of any scale fit alike, and a fit says how good it is. A form knows nothing of ONNX,
runtimes or data.
"""

import abc
from typing import ClassVar

import numpy as np

from onnxcp.chain import Chain, Geometry, Kernel
from onnxcp.forms.fit import Factors, Fit, Outcome, Problem, Shape, Solution, scaled_evenly
from onnxcp.forms.solvers.effort import Effort
from onnxcp.forms.solvers.norm import Norm, relative_error

ROUNDING_LIMIT = 1e-5
"""Of the kernel: what storing its factors in single precision may change. Some 1e-7 is usual;
at this limit half precision, 2¹³ times as coarse, changes 8 per cent."""
WIDEST_SCALE = 1e50  # of a kernel: sensitivity is of the fourth power of its factors


class Form(abc.ABC):
    """A row of `FORMS`: its name, what its chain is made of, and its methods.

    Shapes and strides have as many dimensions as the window: the depthwise or dense stages
    carry them.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    @abc.abstractmethod
    def refuses(self, shape: Shape) -> str | None:
        """The reason why a kernel has no such chain, or None."""

    @abc.abstractmethod
    def largest(self, shape: Shape) -> int:
        """The rank at which every kernel can be written exactly: more has no use."""

    @abc.abstractmethod
    def draw(self, shape: Shape, rank: int, rng: np.random.Generator) -> Factors:
        """Random factors: a start for a fit, or a chain to time."""

    @abc.abstractmethod
    def solve(self, problem: Problem) -> Solution:
        """Factors of a kernel whose largest entry is one."""

    @abc.abstractmethod
    def stages(self, factors: Factors, shape: Shape, geometry: Geometry) -> Chain:
        """The chain that computes with the factors, without bias."""

    @abc.abstractmethod
    def reconstruct(self, factors: Factors, shape: Shape) -> Kernel:
        """The dense kernel that the chain stands for."""

    @abc.abstractmethod
    def sensitivity(self, factors: Factors) -> float:
        """Expected squared change of the kernel per unit variance of noise on the factors."""

    @abc.abstractmethod
    def balance(self, factors: Factors) -> Factors:
        """The factors of least sensitivity that make the same kernel, as far as the form can
        tell."""

    def scale(self, factors: Factors, by: float) -> Factors:
        """Factors of a kernel `by` times as large."""
        return scaled_evenly(factors, by)

    def fit(
        self,
        kernel: Kernel,
        rank: int,
        norm: Norm | None,
        rng: np.random.Generator,
        effort: Effort,
        start: Factors | None = None,
    ) -> Fit:
        """Fit factors of a rank to a kernel.

        Args:
            norm: the norm of the error; the plain one for None.
            start: factors of this rank or a smaller one to start from.

        A kernel of zeros is fitted by zeros. One that is not finite, or of a scale whose
        squares are not, ends as DIVERGED.
        """
        drawn = self.draw(kernel.shape, rank, rng)
        largest = float(np.abs(kernel).max())
        if not largest:
            zeros = tuple(np.zeros_like(f) for f in drawn)
            return Fit(self.name, zeros, 0.0, 0.0, 0.0, Outcome.CONVERGED, 0)
        if not 1 / WIDEST_SCALE < largest < WIDEST_SCALE:
            lost = tuple(np.full_like(f, np.nan) for f in drawn)
            return Fit(self.name, lost, np.nan, np.nan, np.nan, Outcome.DIVERGED, 0)
        unit = kernel.astype(np.float64) / largest
        problem = Problem(unit, largest, rank, norm, effort, drawn, start)
        return self._judged(problem, self.solve(problem))

    def _judged(self, problem: Problem, solution: Solution) -> Fit:
        """The solution at the scale of the kernel, balanced, and how good it is."""
        unit, stable = problem.unit, solution.stable
        before = self.scale(solution.least_squares, problem.scale)
        factors = self.balance(self.scale(stable, problem.scale))
        outcome = _outcome(factors, solution.converged)
        if outcome.is_usable and not solution.is_draft and self._cancels(stable, unit):
            outcome = Outcome.DEGENERATE
        return Fit(
            form=self.name,
            factors=factors,
            error=relative_error(unit, self.reconstruct(stable, unit.shape), problem.norm),
            sensitivity_before=self.sensitivity(before),
            sensitivity_after=self.sensitivity(factors),
            outcome=outcome,
            sweeps=solution.sweeps,
        )

    def _cancels(self, factors: Factors, unit: Kernel) -> bool:
        """Whether terms are so much larger than their sum that rounding them changes the
        kernel."""
        stored = tuple(f.astype(np.float32).astype(np.float64) for f in factors)
        rounded, exact = (self.reconstruct(f, unit.shape) for f in (stored, factors))
        return bool(np.linalg.norm(rounded - exact) > ROUNDING_LIMIT * np.linalg.norm(unit))


def _outcome(factors: Factors, converged: bool) -> Outcome:
    if not all(np.isfinite(f).all() for f in factors):
        return Outcome.DIVERGED
    return Outcome.CONVERGED if converged else Outcome.SWEEPS_EXHAUSTED
