"""A kernel and its norm, laid out for the steps of `weighted` on a device."""

import math
from dataclasses import dataclass

import numpy as np

from onnxcp.chain import Kernel, Sizes
from onnxcp.forms.solvers.device import CPU, Device, Held
from onnxcp.forms.solvers.norm import Norm, Square, flat

DAMPING = 1e-2  # of the largest eigenvalue, on the preconditioner's Σ


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A kernel of ‖K‖_Σ = 1 and its norm, in the precision of the steps."""

    sizes: Sizes  # of the modes (T, S, *spatial)
    precision: np.dtype
    product: Held  # K·Σ, on the device
    covariance: Held
    inverses: tuple[Square, ...]  # of Σ's Kronecker parts, for modes S, *spatial
    parts: tuple[Square, ...]
    device: Device

    @classmethod
    def of(cls, kernel: Kernel, spatial: Sizes, norm: Norm, device: Device = CPU) -> "Problem":
        """The problem of a kernel, in the precision of its norm."""
        precision = norm.covariance.dtype
        product = norm.weigh(flat(kernel).astype(precision))
        places, channels = norm.kronecker(kernel.shape[1], math.prod(spatial))
        parts = (channels, *_sides(places, spatial))
        inverses = tuple(_damped_inverse(part) for part in parts)
        sizes = (*kernel.shape[:2], *spatial)
        held = (device.put(product), device.put(norm.covariance))
        return cls(sizes, precision, *held, inverses, parts, device)

    def weigh(self, pairs: Held) -> Held:
        """Σ times the columns of [K·S, R]."""
        size = self.covariance.shape[0]
        if pairs.shape[0] == size:
            return self.covariance @ pairs
        return (self.covariance @ pairs.reshape(-1, size, pairs.shape[1])).reshape(pairs.shape)


def _damped_inverse(matrix: Square) -> Square:
    values, vectors = np.linalg.eigh(matrix)
    inverse: Square = (vectors / (np.maximum(values, 0) + DAMPING * values[-1])) @ vectors.T
    return inverse


def _sides(places: Square, spatial: Sizes) -> list[Square]:
    """Of positions [K, K]: the part of every spatial mode, the others averaged out."""
    if len(spatial) == 1:
        return [places]
    grid = places.reshape(*spatial, *spatial)
    count, parts = len(spatial), []
    for mode in range(count):
        letters = list(range(count)) + [count + mode if k == mode else k for k in range(count)]
        part = np.einsum(grid, letters, [mode, count + mode])
        parts.append(part * spatial[mode] / np.prod(spatial))
    return parts
