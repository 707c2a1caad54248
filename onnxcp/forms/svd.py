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
from onnxcp.forms.form import Factors, Fit, Form, Shape
from onnxcp.forms.solvers.effort import Effort
from onnxcp.forms.solvers.norm import Flat, Norm, flat, leading, unflat
from onnxcp.forms.unit import Found, Rules, fit_unit, shared


def _refuses(shape: Shape) -> str | None:
    if _largest(shape) == 1:
        return "a kernel of one output, or of one input, is of rank one already"
    return None


def _largest(shape: Shape) -> int:
    return min(shape[0], math.prod(shape[1:]))


def _draw(shape: Shape, rank: int, rng: np.random.Generator) -> Factors:
    width = min(rank, _largest(shape))
    return rng.standard_normal((shape[0], width)), rng.standard_normal((width, *shape[1:]))


def project(
    rows: Flat, rank: int, norm: Norm | None
) -> tuple[Float[np.ndarray, "T R"], Float[np.ndarray, "R KS"]]:
    """(outputs [T, R] with orthonormal columns, the rest [R, K·S]): the best in the norm."""
    basis, small = np.linalg.qr(rows) if len(rows) > rows.shape[1] else (None, rows)
    weighed = small if norm is None else norm.weigh(small)
    outputs = leading(weighed @ small.T, rank)
    rest = outputs.T @ small
    return (outputs if basis is None else basis @ outputs), rest


def _solve(unit: Kernel, rank: int, norm: Norm | None) -> Found:
    outputs, rest = project(flat(unit), min(rank, _largest(unit.shape)), norm)
    factors = (outputs, unflat(rest, (len(rest), *unit.shape[1:])))
    return Found(_balanced(factors, even=True), factors, sweeps=1, converged=True)


def _fit(
    kernel: Kernel,
    rank: int,
    norm: Norm | None,
    rng: np.random.Generator,
    effort: Effort,
    start: Factors | None = None,
) -> Fit:
    del effort, start  # a closed form has no use for them
    drawn = _draw(kernel.shape, rank, rng)
    return fit_unit("svd", kernel, norm, drawn, RULES, lambda unit, _: _solve(unit, rank, norm))


def _reconstruct(factors: Factors, shape: Shape) -> Kernel:
    dense: Kernel = np.tensordot(factors[0], factors[1], axes=1).reshape(shape)
    return dense


def _sensitivity(factors: Factors) -> float:
    """T·‖inputs‖² + S·K·‖outputs‖²: what noise on either factor does to the kernel."""
    outputs, inputs = factors
    by_outputs = len(outputs) * float(np.square(inputs).sum())
    return by_outputs + math.prod(inputs.shape[1:]) * float(np.square(outputs).sum())


def _balance(factors: Factors) -> Factors:
    return _balanced(factors, even=False)


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


def _stages(factors: Factors, shape: Shape, geometry: Geometry) -> Chain:
    del shape  # the factors have the window
    outputs, inputs = factors
    return (
        Stage("inputs", inputs, geometry),
        pointwise("outputs", outputs, geometry.dimensions),
    )


RULES = Rules(_reconstruct, _sensitivity, _balance, shared)
SVD = Form(
    "svd",
    "Y×X to few channels, 1×1",
    _refuses,
    _draw,
    _fit,
    _stages,
    _reconstruct,
    _sensitivity,
    _largest,
)
