"""The norm a fit is measured in: plain, or weighted by the covariance of real inputs.

A layer's output changes by (K − K̂)·patch when K̂ takes the place of its kernel. Over input
patches of covariance Σ the mean squared change is

    ‖K − K̂‖²_Σ = tr((K − K̂) Σ (K − K̂)ᵀ),

with the kernel flattened to [T, K·S], position-major: column k·S + s. A fit in this norm
spends its rank on the directions that activations really take. Σ is kept for whole patches
[K·S, K·S], or, where that is too large to hold, for channels alone [S, S], taken to be alike
and uncorrelated between positions.

Source: Zhang et al. 2016, arXiv:1505.06798, for the output error in place of the kernel's.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxcp.arrays import Float
from onnxcp.chain import Kernel
from onnxcp.errors import DataError

RIDGE = 1e-3  # on Σ, of its mean variance: dead inputs and too few samples leave it singular
KRONECKER_STEPS = 5  # of power iteration, started near its end

Flat = Float[np.ndarray, "_ KS"]
Square = Float[np.ndarray, "_ _"]


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """A positive definite Σ of unit mean variance: [K·S, K·S], or [S, S] for channels; in the
    precision it came in, which is that of the products with it."""

    covariance: Square

    @classmethod
    def of(cls, covariance: Square, where: str = "the layer") -> "Norm | None":
        """The norm of measured inputs; None, the plain norm, where they never vary.

        Raises:
            DataError: the covariance holds NaN or infinity.
        """
        refuse_infinite(covariance, where)
        mean = float(np.trace(covariance)) / len(covariance)
        if mean <= np.finfo(np.float32).tiny:
            return None
        scaled = covariance / covariance.dtype.type(mean)
        scaled[np.diag_indices_from(scaled)] += RIDGE
        return cls(scaled)

    def of_type(self, dtype: type[np.floating[Any]]) -> "Norm":
        """The same in single or double precision."""
        return Norm(self.covariance.astype(dtype, copy=False))

    def weigh(self, rows: Flat) -> Flat:
        """rows · Σ."""
        size = len(self.covariance)
        weighed: Flat = (rows.reshape(-1, size) @ self.covariance).reshape(rows.shape)
        return weighed

    def unweigh(self, rows: Flat) -> Flat:
        """rows · Σ⁻¹, in double precision."""
        from scipy.linalg import cho_factor, cho_solve

        size = len(self.covariance)
        factor = cho_factor(self.covariance.astype(np.float64))
        solved: Flat = cho_solve(factor, rows.reshape(-1, size).T).T.reshape(rows.shape)
        return solved

    def reduced(self, basis: Float[np.ndarray, "S R"]) -> "Norm":
        """The norm of kernels on R channels that are put in by `basis`: Zᵀ·Σ·Z with
        Z = I_K ⊗ basis."""
        inputs, rank = basis.shape
        count = len(self.covariance) // inputs
        right = self.covariance.reshape(-1, inputs) @ basis  # [K·S·K, R]
        both = np.einsum("ksm,sr->krm", right.reshape(count, inputs, -1), basis, optimize=True)
        square = both.reshape(count * rank, count * rank)
        return Norm((square + square.T) / 2)

    def energy(self, kernel: Kernel) -> float:
        """‖kernel‖²_Σ."""
        rows = flat(kernel).astype(self.covariance.dtype)
        return max(float(np.sum(self.weigh(rows) * rows)), 0.0)

    def kronecker(self, inputs: int, places: int) -> tuple[Square, Square]:
        """(M, C), positions [K, K] and channels [S, S], whose Kronecker product is nearest Σ.

        Source: Van Loan & Pitsianis 1993, by power iteration on the rearranged Σ.
        """
        if len(self.covariance) == inputs:
            return np.eye(places), self.covariance.astype(np.float64)
        blocks = self.covariance.reshape(places, inputs, places, inputs)
        channels = self.channels(inputs)
        for _ in range(KRONECKER_STEPS):
            between = np.einsum("kslt,st->kl", blocks, channels, optimize=True)
            between /= np.square(channels).sum()
            channels = np.einsum("kslt,kl->st", blocks, between, optimize=True)
            channels /= np.square(between).sum()
        scale = float(np.trace(channels)) / inputs
        return between * scale, channels / scale

    def channels(self, inputs: int) -> Square:
        """[S, S], the mean over positions."""
        count = len(self.covariance) // inputs
        blocks = self.covariance.reshape(count, inputs, count, inputs)
        mean: Square = np.einsum("kskt->st", blocks).astype(np.float64) / count
        return mean


def refuse_infinite(covariance: Square, where: str) -> None:
    """Raises DataError if a covariance holds NaN or infinity, with the layer's name."""
    if not np.isfinite(covariance).all():
        raise DataError(
            f"{where}: its inputs are NaN or infinite on the calibration data; "
            "give other samples, or check <<preprocess>>"
        )


def flat(kernel: Kernel) -> Flat:
    """[T, K·S], position-major, in double precision."""
    rows = kernel.astype(np.float64).reshape(*kernel.shape[:2], -1)
    return np.ascontiguousarray(rows.transpose(0, 2, 1)).reshape(len(rows), -1)


def unflat(rows: Flat, shape: tuple[int, ...]) -> Kernel:
    """The kernel of a given shape whose `flat` is `rows`."""
    kernel: Kernel = rows.reshape(shape[0], -1, shape[1]).transpose(0, 2, 1).reshape(shape)
    return kernel


def roots(matrix: Square) -> tuple[Square, Square]:
    """Symmetric square root of a positive definite matrix, and the root's inverse."""
    values, vectors = np.linalg.eigh(matrix)
    values = np.sqrt(np.maximum(values, np.finfo(np.float64).eps * max(values[-1], 1e-300)))
    return (vectors * values) @ vectors.T, (vectors / values) @ vectors.T


def leading(square: Square, count: int) -> Square:
    """Eigenvectors of a symmetric matrix, those of the largest eigenvalues first."""
    vectors: Square = np.linalg.eigh(square)[1][:, : -count - 1 : -1]
    return vectors


def energy(kernel: Kernel, norm: Norm | None) -> float:
    """‖kernel‖² in a norm, the plain one for None."""
    return float(np.square(flat(kernel)).sum()) if norm is None else norm.energy(kernel)


def relative_error(kernel: Kernel, model: Kernel, norm: Norm | None) -> float:
    """‖kernel − model‖ / ‖kernel‖ in a norm; 0 for a kernel of norm 0."""
    size = energy(kernel, norm)
    return float(np.sqrt(energy(kernel.astype(np.float64) - model, norm) / size)) if size else 0.0
