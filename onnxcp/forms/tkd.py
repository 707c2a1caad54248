"""TKD: Tucker-2 first, then CP of the core.

    K[t, s, k]  ≈  Σ_r  (outer·outputs)[t, r] · (first·inputs)[s, r] · window[k, r]

runs as 1×1 (S→R2, `first`), 1×1 (R2→R), depthwise Y×X, 1×1 (R→R1), 1×1 (R1→T, `outer`):
S·R2 + R·(R2 + K + R1) + R1·T multiply-adds per output pixel. Two thin 1×1 cost less than the
one of `cp3` at ranks well above the basis; where they do not, a side has no basis: one of
zero columns, which becomes no stage.

Choose it only for kernels whose channels are redundant as such. On ResNet-20 and ResNet-18
kernels, under the covariance of their inputs and at equal multiply-adds, what the bases lose
alone is more than `cp3` loses in all: relative errors of 0.18 to 0.45 against 0.04 to 0.16
at half the multiply-adds of the kernel.

The core is fitted like a kernel by CP, in the norm in which its bases leave it.

Source: Phan et al. 2020, arXiv:2008.05441.
"""

import math

import numpy as np

from onnxcp.arrays import Float
from onnxcp.chain import Chain, Geometry, Kernel, Stage, pointwise
from onnxcp.forms.cp import largest
from onnxcp.forms.fit import Factors, Problem, Shape, Solution
from onnxcp.forms.form import Form
from onnxcp.forms.solvers.cp_algebra import Matrix, column_energy
from onnxcp.forms.solvers.cp_fit import solve_cp
from onnxcp.forms.solvers.tucker_als import Tucker, tucker
from onnxcp.forms.tucker import Core

Outer = Float[np.ndarray, "T _"]  # R1 columns, or none where the side is whole
First = Float[np.ndarray, "S _"]  # R2 columns, or none

PAYS = 0.8  # of the one 1×1 that two replace, the most they may cost: a heuristic
BLOCK = 8  # a basis is a multiple of this: what runtimes compute at once
SETTLING = 10  # rounds of balancing, each exact in one group of factors


class Tkd(Form):
    """CP of the core that two bases leave."""

    name = "tkd"
    summary = "1×1, 1×1, depthwise Y×X, 1×1, 1×1"

    def refuses(self, shape: Shape) -> str | None:
        """Kernels without a window."""
        if math.prod(shape[2:]) == 1:
            return "a 1×1 kernel has no window between its channels; use svd"
        return None

    def largest(self, shape: Shape) -> int:
        """That of CP: the bases may be whole."""
        return largest(shape)

    def draw(self, shape: Shape, rank: int, rng: np.random.Generator) -> Factors:
        """(outer [T, R1], first [S, R2], then the CP factors of the core [R1 or T, R],
        [R2 or S, R] and [K, R]); a side without a basis has one of zero columns."""
        first, second = _widths(shape, rank)
        core = tuple(rng.standard_normal((n, rank)) for n in (first, second, math.prod(shape[2:])))
        pairs = ((shape[0], first), (shape[1], second))
        bases = [rng.standard_normal((n, width if width < n else 0)) for n, width in pairs]
        return (*bases, *core)

    def solve(self, problem: Problem) -> Solution:
        """Bases first, then the core, each from the start where it has the same shapes."""
        start, drawn = problem.start, problem.drawn
        if start is not None and [f.shape for f in start] != [f.shape for f in drawn]:
            start = None  # bases of another width
        if start is not None:
            start = self.scale(start, 1 / problem.scale)
        widths, norm, effort = (len(drawn[2]), len(drawn[3])), problem.norm, problem.effort
        basis = None if start is None or not start[1].size else start[1]
        outer, first, core = _bases(tucker(problem.unit, widths, norm, effort, basis))
        terms = drawn[2:] if start is None else _within(outer, first, start)
        inner = norm.reduced(first) if norm is not None and first.size else norm
        found = solve_cp(core, (core.shape[2],), inner, terms, effort, warm=start is not None)
        rough, stable = (outer, first, *found.least_squares), (outer, first, *found.stable)
        return Solution(rough, stable, found.sweeps, found.converged, found.is_draft)

    def scale(self, factors: Factors, by: float) -> Factors:
        """The terms alone: bases keep their scale."""
        return (*factors[:2], *(f * np.cbrt(by) for f in factors[2:]))

    def stages(self, factors: Factors, shape: Shape, geometry: Geometry) -> Chain:
        """The depthwise window between two 1×1 on each side that has a basis."""
        outer, first, outputs, inputs, window = factors
        rank, dimensions = window.shape[1], geometry.dimensions
        before = [pointwise("first", first.T, dimensions)] if first.size else []
        after = [pointwise("last", outer, dimensions)] if outer.size else []
        depthwise = Stage("window", window.T.reshape(rank, 1, *shape[2:]), geometry, group=rank)
        return (
            *before,
            pointwise("inputs", inputs.T, dimensions),
            depthwise,
            pointwise("outputs", outputs, dimensions),
            *after,
        )

    def reconstruct(self, factors: Factors, shape: Shape) -> Kernel:
        """The sum of the terms, seen through the bases."""
        outputs, inputs, window = _terms(factors)
        rows = np.einsum("tr,sr->tsr", outputs, inputs).reshape(-1, window.shape[1])
        dense: Kernel = (rows @ window.T).reshape(shape)
        return dense

    def sensitivity(self, factors: Factors) -> float:
        """Noise on the terms of the core, seen through the bases, and on the bases:
        T·‖outputs × the rest of the terms‖², and S·… of the inputs."""
        outer, first, outputs, inputs, window = factors
        a, b, c = column_energy(_terms(factors))
        total = (
            len(window) * (a @ b) + _gain(outer, outputs) * (b @ c) + _gain(first, inputs) * (a @ c)
        )
        for mode, (basis, inner) in enumerate(((outer, outputs), (first, inputs))):
            if basis.size:
                total += len(basis) * np.sum((inner @ _rest(factors, mode)) * inner)
        return float(total)

    def balance(self, factors: Factors) -> Factors:
        """The same kernel at a minimum of sensitivity: scales of the terms and both bases in turn,
        each in closed form."""
        for _ in range(SETTLING):
            factors = _term_scales(factors)
            for mode in (0, 1):
                if factors[mode].size:
                    factors = _basis_turned(factors, mode)
        return _term_scales(factors)


def _width(channels: int, rank: int) -> int:
    """The widest basis whose two 1×1 cost at most `PAYS` of the one; all channels if none."""
    most = PAYS * channels * rank / (channels + rank)
    return int(most) // BLOCK * BLOCK or channels


def _widths(shape: Shape, rank: int) -> tuple[int, int]:
    """(R1, R2) of a rank; a basis is no wider than the rest of the core can tell apart."""
    outputs, inputs, places = shape[0], shape[1], math.prod(shape[2:])
    first, second = _width(outputs, rank), _width(inputs, rank)
    if first < outputs:
        first = min(first, second * places)
    if second < inputs:
        second = min(second, first * places)
    return first, second


def _bases(found: Tucker) -> tuple[Outer, First, Core]:
    """Bases and core; a basis as wide as its channels goes into the core."""
    core, bases = np.moveaxis(found.core, 1, 2), []
    for mode, basis in enumerate((found.outputs, found.inputs)):
        if len(basis) == basis.shape[1]:
            core = np.moveaxis(np.tensordot(basis, core, axes=(1, mode)), 0, mode)
            basis = basis[:, :0]
        bases.append(basis)
    return bases[0], bases[1], core


def _within(outer: Outer, first: First, start: Factors) -> Factors:
    """The terms of other factors, seen in these bases."""
    outputs, inputs, window = _terms(start)
    outputs = outer.T @ outputs if outer.size else outputs
    inputs = np.linalg.lstsq(first, inputs, rcond=None)[0] if first.size else inputs
    return outputs, inputs, window


def _terms(factors: Factors) -> tuple[Matrix, Matrix, Matrix]:
    """The CP terms of the whole kernel."""
    outer, first, outputs, inputs, window = factors
    outputs = outer @ outputs if outer.size else outputs
    return outputs, first @ inputs if first.size else inputs, window


def _gain(basis: Outer | First, inner: Matrix) -> float:
    """What noise on one column of the factor behind a basis becomes, summed over entries."""
    return float(np.square(basis).sum()) if basis.size else float(len(inner))


def _rest(factors: Factors, mode: int) -> Matrix:
    """[R, R]: inner products of the terms without their part in a channel mode."""
    terms = _terms(factors)
    other, window = terms[1 - mode], terms[2]
    rest: Matrix = (other.T @ other) * (window.T @ window)
    return rest


def _term_scales(factors: Factors) -> Factors:
    """Noise on the three factors of a term is best made to count alike."""
    outer, first, *inner = factors
    a, b, c = column_energy(_terms(factors))
    by_terms = (_gain(outer, inner[0]) * b * c, _gain(first, inner[1]) * a * c)
    gains = np.stack([*by_terms, len(inner[2]) * a * b])
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = np.sqrt(gains / np.exp(np.log(gains).mean(axis=0)))
    scales = np.where(np.isfinite(scales), scales, 0.0)
    return (outer, first, *(f * s for f, s in zip(inner, scales, strict=True)))


def _basis_turned(factors: Factors, mode: int) -> Factors:
    """A basis along the singular vectors of basis·inner in the metric of the rest of the
    terms, by the roots of the singular values."""
    basis, inner = factors[mode], factors[2 + mode]
    a, b, c = column_energy(_terms(factors))
    gain = float((b if mode == 0 else a) @ c)  # of noise on the inner factor
    left, upper = np.linalg.qr(basis)
    metric = _rest(factors, mode)
    values, turn = np.linalg.eigh(upper @ inner @ metric @ (upper @ inner).T)
    root = np.sqrt(np.sqrt(np.maximum(values, 0)))  # of singular values
    root *= (len(basis) / max(gain, np.finfo(np.float64).tiny)) ** 0.25
    inverse = np.divide(1.0, root, out=np.zeros_like(root), where=root > 0)
    made = list(factors)
    made[mode], made[2 + mode] = left @ turn * root, inverse[:, None] * (turn.T @ upper @ inner)
    return tuple(made)


TKD = Tkd()
