"""Channel SVD: a convolution to few channels, and a 1×1 from there to all outputs.

    K[t, s, k]  ≈  Σ_r  outputs[t, r] · inputs[r, s, k]

runs as a dense window stage (S→R) and a 1×1 (R→T): R·(S·K + T) multiply-adds per output
pixel in place of T·S·K. Choose it for 1×1 convolutions and matrix products, which no other
form takes; on larger windows CP reaches the same error with fewer multiply-adds, but the
window here stays a dense convolution, which runtimes run well.

The best factors have a closed form in any norm: the projection of K on the leading R
eigenvectors of flat(K)·Σ·flat(K)ᵀ, which is what un-whitening the truncated SVD of
flat(K)·Σ^½ gives.

Sources: Denton et al. 2014, arXiv:1404.0736; Zhang et al. 2016, arXiv:1505.06798, for
windows and for the norm of responses.
"""

import math

import numpy as np

from onnxcp.arrays import Float
from onnxcp.chain import Chain, Geometry, Kernel, Stage, pointwise
from onnxcp.forms.fit import Factors, Problem, Shape, Solution
from onnxcp.forms.form import Form
from onnxcp.forms.solvers.norm import Flat, Norm, flat, leading, unflat


class Svd(Form):
    """A window to few channels, and a 1×1 from there."""

    name = "svd"
    summary = "Y×X to few channels, 1×1"

    def refuses(self, shape: Shape) -> str | None:
        """Kernels that have no lower rank."""
        if self.largest(shape) == 1:
            return "a kernel of one output, or of one input, is of rank one already"
        return None

    def largest(self, shape: Shape) -> int:
        """The smaller side of the kernel as a matrix [T, S·K]."""
        return min(shape[0], math.prod(shape[1:]))

    def draw(self, shape: Shape, rank: int, rng: np.random.Generator) -> Factors:
        """(outputs [T, R], inputs [R, S, *window])."""
        width = min(rank, self.largest(shape))
        return rng.standard_normal((shape[0], width)), rng.standard_normal((width, *shape[1:]))

    def solve(self, problem: Problem) -> Solution:
        """The closed form, which has no use for a start."""
        unit = problem.unit
        rank = min(problem.rank, self.largest(unit.shape))
        outputs, rest = project(flat(unit), rank, problem.norm)
        factors = (outputs, unflat(rest, (len(rest), *unit.shape[1:])))
        return Solution(_balanced(factors, even=True), factors, sweeps=1, converged=True)

    def stages(self, factors: Factors, shape: Shape, geometry: Geometry) -> Chain:
        """The dense window, then the 1×1."""
        del shape  # the factors have the window
        outputs, inputs = factors
        return (
            Stage("inputs", inputs, geometry),
            pointwise("outputs", outputs, geometry.dimensions),
        )

    def reconstruct(self, factors: Factors, shape: Shape) -> Kernel:
        """Their product."""
        dense: Kernel = np.tensordot(factors[0], factors[1], axes=1).reshape(shape)
        return dense

    def sensitivity(self, factors: Factors) -> float:
        """T·‖inputs‖² + S·K·‖outputs‖²: what noise on either factor does to the kernel."""
        outputs, inputs = factors
        by_outputs = len(outputs) * float(np.square(inputs).sum())
        return by_outputs + math.prod(inputs.shape[1:]) * float(np.square(outputs).sum())

    def balance(self, factors: Factors) -> Factors:
        """Along the singular vectors, in closed form."""
        return _balanced(factors, even=False)


def project(
    rows: Flat, rank: int, norm: Norm | None
) -> tuple[Float[np.ndarray, "T R"], Float[np.ndarray, "R KS"]]:
    """(outputs [T, R] with orthonormal columns, the rest [R, K·S]): the best in the norm."""
    basis, small = np.linalg.qr(rows) if len(rows) > rows.shape[1] else (None, rows)
    weighed = small if norm is None else norm.weigh(small)
    outputs = leading(weighed @ small.T, rank)
    rest = outputs.T @ small
    return (outputs if basis is None else basis @ outputs), rest


def _balanced(factors: Factors, *, even: bool) -> Factors:
    """The same kernel by the square roots of its singular values on both sides: of equal
    norms, or shared out for the least sensitivity, 2·√(T·S·K) times the sum of the values."""
    outputs, inputs = factors
    left, upper = np.linalg.qr(outputs)
    right, lower = np.linalg.qr(inputs.reshape(len(inputs), -1).T)
    u, values, v = np.linalg.svd(upper @ lower.T, full_matrices=False)
    share = 1.0 if even else (len(outputs) / math.prod(inputs.shape[1:])) ** 0.25
    root = np.sqrt(values)
    made = (left @ u) * (root * share), (v * (root / share)[:, None]) @ right.T
    return made[0], made[1].reshape(-1, *inputs.shape[1:])


SVD = Svd()
