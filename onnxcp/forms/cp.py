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

import abc
import math

import numpy as np

from onnxcp.chain import Chain, Geometry, Kernel, Sizes, Stage, pointwise
from onnxcp.forms.fit import Factors, Problem, Shape, Solution, scaled_evenly
from onnxcp.forms.form import Form
from onnxcp.forms.solvers import cp_algebra
from onnxcp.forms.solvers.cp_fit import grown, solve_cp

SIDES = ("vertical", "horizontal", "deep")  # role of the stage along each window dimension


class Cp(Form):
    """What both CP forms share: factors [n, R] of the outputs, the inputs and the window."""

    @abc.abstractmethod
    def window(self, shape: Shape) -> Sizes:
        """Rows of each factor of the window."""

    def refuses(self, shape: Shape) -> str | None:
        """Kernels without a window."""
        if math.prod(shape[2:]) == 1:
            return "a 1×1 kernel has no window to separate"
        return None

    def largest(self, shape: Shape) -> int:
        """A term for each pair of what is not the larger channel mode."""
        return largest(shape)

    def draw(self, shape: Shape, rank: int, rng: np.random.Generator) -> Factors:
        """(outputs [T, R], inputs [S, R], then each of the window)."""
        sizes = (*shape[:2], *self.window(shape))
        return tuple(rng.standard_normal((size, rank)) for size in sizes)

    def solve(self, problem: Problem) -> Solution:
        """From the start, with random terms after its own where it has too few."""
        begin, is_whole = problem.drawn, False
        if problem.start is not None:
            begin = scaled_evenly(grown(problem.start, problem.drawn), 1 / problem.scale)
            is_whole = problem.start[0].shape[1] == problem.rank
        sizes = self.window(problem.unit.shape)
        return solve_cp(problem.unit, sizes, problem.norm, begin, problem.effort, warm=is_whole)

    def reconstruct(self, factors: Factors, shape: Shape) -> Kernel:
        """The sum of the terms."""
        return cp_algebra.dense(factors, shape)

    def sensitivity(self, factors: Factors) -> float:
        """Summed over the factors: their rows times the energy of the terms without them."""
        return cp_algebra.sensitivity(factors)

    def balance(self, factors: Factors) -> Factors:
        """The scales within each term, in closed form."""
        return cp_algebra.balance(factors)


class Cp3(Cp):
    """The window whole."""

    name = "cp3"
    summary = "1×1, Y×X, 1×1"

    def window(self, shape: Shape) -> Sizes:
        """One factor of all positions."""
        return (math.prod(shape[2:]),)

    def stages(self, factors: Factors, shape: Shape, geometry: Geometry) -> Chain:
        """One depthwise window between two 1×1."""
        rank = factors[0].shape[1]
        window = factors[2].T.reshape(rank, 1, *shape[2:])
        return _between(factors, (Stage("window", window, geometry, group=rank),))


class Cp4(Cp):
    """The window separated along its dimensions."""

    name = "cp4"
    summary = "1×1, Y×1, 1×X, 1×1"

    def refuses(self, shape: Shape) -> str | None:
        """Kernels without a window of two sides."""
        reason = super().refuses(shape)
        if reason is None and len([size for size in shape[2:] if size > 1]) < 2:
            return f"a {'×'.join(map(str, shape[2:]))} window has one side already; use cp3"
        return reason

    def window(self, shape: Shape) -> Sizes:
        """A factor for each dimension."""
        return shape[2:]

    def stages(self, factors: Factors, shape: Shape, geometry: Geometry) -> Chain:
        """A depthwise stage along each dimension between two 1×1."""
        rank, count = factors[0].shape[1], len(shape) - 2
        middle = []
        for at, side in enumerate(factors[2:]):
            window = side.T.reshape(rank, 1, *(len(side) if k == at else 1 for k in range(count)))
            middle.append(Stage(SIDES[at], window, geometry.along(at), group=rank))
        return _between(factors, tuple(middle))


def largest(shape: Shape) -> int:
    """The rank at which every kernel can be written: a term for each pair of what is not the
    larger channel mode."""
    return math.prod(shape) // max(shape[:2])


def _between(factors: Factors, middle: tuple[Stage, ...]) -> Chain:
    """The depthwise stages between the two 1×1."""
    dimensions = middle[0].geometry.dimensions
    return (
        pointwise("inputs", factors[1].T, dimensions),
        *middle,
        pointwise("outputs", factors[0], dimensions),
    )


CP3 = Cp3()
CP4 = Cp4()
