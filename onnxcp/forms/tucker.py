"""Tucker-2: a small dense convolution between two 1×1, both channel modes compressed.

    K[t, s, k]  ≈  Σ_ij  outputs[t, i] · core[i, j, k] · inputs[s, j]

runs as 1×1 (S→R2), dense Y×X (R2→R1), 1×1 (R1→T): S·R2 + K·R1·R2 + R1·T multiply-adds per
output pixel. CP reaches the same error with fewer; choose `tucker2` where a runtime is slow
at depthwise convolutions. The rank is that of the outputs, R1, and R2 follows from it.

Source: Kim et al. 2016, arXiv:1511.06530.
"""

import math

import numpy as np

from onnxcp.arrays import Float
from onnxcp.chain import Chain, Geometry, Kernel, Stage, pointwise
from onnxcp.forms.fit import Factors, Problem, Shape, Solution
from onnxcp.forms.form import Form
from onnxcp.forms.solvers.tucker_als import Basis, tucker

Core = Float[np.ndarray, "R1 R2 K"]


class Tucker2(Form):
    """A 1×1, a dense window on few channels, and a 1×1."""

    name = "tucker2"
    summary = "1×1, dense Y×X on few channels, 1×1"

    def refuses(self, shape: Shape) -> str | None:
        """Kernels without a window."""
        if math.prod(shape[2:]) == 1:
            return "a 1×1 kernel has no window between its channels; use svd"
        return None

    def largest(self, shape: Shape) -> int:
        """The most columns that a basis of the outputs can have."""
        return min(shape[0], math.prod(shape[1:]))

    def widths(self, shape: Shape, rank: int) -> tuple[int, int]:
        """(R1, R2) of a rank: R1 is the rank, and R2 as large a part of the inputs as the rank
        is of the largest; neither more than the core's other two modes can tell apart."""
        most, places = self.largest(shape), math.prod(shape[2:])
        second = max(1, round(min(rank, most) * shape[1] / most))
        first = min(rank, most, second * places)
        return first, min(second, first * places)

    def draw(self, shape: Shape, rank: int, rng: np.random.Generator) -> Factors:
        """(outputs [T, R1], inputs [S, R2], core [R1, R2, *window])."""
        first, second = self.widths(shape, rank)
        sizes = ((shape[0], first), (shape[1], second), (first, second, *shape[2:]))
        return tuple(rng.standard_normal(size) for size in sizes)

    def solve(self, problem: Problem) -> Solution:
        """Bases in turn, from that of the inputs of the start; a basis has no scale."""
        unit, start = problem.unit, problem.start
        widths = self.widths(unit.shape, problem.rank)
        basis = start[1] if start is not None and start[1].shape[1] == widths[1] else None
        solved = tucker(unit, widths, problem.norm, problem.effort, basis)
        core = np.moveaxis(solved.core, 1, 2).reshape(*widths, *unit.shape[2:])
        factors = (solved.outputs, solved.inputs, core)
        return Solution(factors, factors, solved.sweeps, solved.converged)

    def stages(self, factors: Factors, shape: Shape, geometry: Geometry) -> Chain:
        """The core between the bases."""
        del shape  # the core has the window
        outputs, inputs, core = factors
        return (
            pointwise("inputs", inputs.T, geometry.dimensions),
            Stage("core", core, geometry),
            pointwise("outputs", outputs, geometry.dimensions),
        )

    def reconstruct(self, factors: Factors, shape: Shape) -> Kernel:
        """The core times both bases."""
        outputs, inputs, core = factors
        dense = np.einsum("ti,ijk,sj->tsk", outputs, _flat_core(core), inputs, optimize=True)
        made: Kernel = dense.reshape(shape)
        return made

    def sensitivity(self, factors: Factors) -> float:
        """K·‖outputs‖²·‖inputs‖² by noise on the core, T·‖core × inputs‖² by noise on the outputs,
        S·‖core × outputs‖² by noise on the inputs."""
        outputs, inputs, core = factors
        flat_core = _flat_core(core)
        by_core = np.square(outputs).sum() * np.square(inputs).sum() * flat_core.shape[2]
        by_outputs = len(outputs) * np.square(np.tensordot(flat_core, inputs, axes=(1, 1))).sum()
        by_inputs = len(inputs) * np.square(np.tensordot(flat_core, outputs, axes=(0, 1))).sum()
        return float(by_core + by_outputs + by_inputs)

    def balance(self, factors: Factors) -> Factors:
        """The least sensitive of all factors of the same kernel, in closed form.

        With the other held, a basis is best along the kernel's singular vectors in its mode,
        scaled by the roots of the singular values. Only the sizes A = ‖outputs‖² and
        B = ‖inputs‖² are left: with P and Q the sums of the singular values, the minimum of
        K·A·B + T·P²/A + S·Q²/B is at A³ = T²·P⁴ / (K·S·Q²), and B likewise.
        """
        outputs, inputs, core = factors
        flat_core, (t, s) = _flat_core(core), (len(outputs), len(inputs))
        outputs, flat_core, left = _turned(outputs, flat_core, 0)
        inputs, flat_core, right = _turned(inputs, flat_core, 1)
        outputs, flat_core, left = _turned(outputs, flat_core, 0)
        p, q, places = left.sum(), right.sum(), flat_core.shape[2]
        if not p or not q:
            return tuple(np.zeros_like(f) for f in factors)
        most = np.cbrt(t**2 / (places * s) * (p**4 / q**2))
        least = np.cbrt(s**2 / (places * t) * (q**4 / p**2))
        rows, columns = np.sqrt(left * (most / p)), np.sqrt(right * (least / q))
        shared_core = flat_core * _inverses(rows)[:, None, None] * _inverses(columns)[:, None]
        return outputs * rows, inputs * columns, shared_core.reshape(core.shape)


def _flat_core(core: np.ndarray) -> Core:
    flat_core: Core = core.reshape(*core.shape[:2], -1)
    return flat_core


def _turned(basis: Basis, core: Core, mode: int) -> tuple[Basis, Core, Float[np.ndarray, " _"]]:
    """The same, the basis orthonormal and along the core's singular vectors in its mode; and
    the core's singular values."""
    basis, upper = np.linalg.qr(basis)
    turned = np.moveaxis(np.tensordot(upper, core, axes=(1, mode)), 0, mode)
    rows = np.moveaxis(turned, mode, 0).reshape(len(upper), -1)
    turn, values, _ = np.linalg.svd(rows, full_matrices=False)
    along = np.moveaxis(np.tensordot(turn, turned, axes=(0, mode)), 0, mode)
    return basis @ turn, along, values


def _inverses(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """1/x, and 0 for 0."""
    return np.asarray(np.divide(1.0, values, out=np.zeros_like(values), where=values > 0))


TUCKER2 = Tucker2()
