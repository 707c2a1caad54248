"""The algebra of CP terms: products of a kernel with its factors, scaling, sensitivity.

A rank-R CP model of a tensor is a tuple of matrices, one per mode, whose columns r make
the r-th term. Modes come as (T, S, *spatial): output channels, input channels, then the
kernel's height and width, or both merged into one.

The matricised tensor times Khatri-Rao product (MTTKRP) of a mode is what least squares
needs of the data. The large Khatri-Rao product of the textbook is never built: one matrix
product contracts a channel mode away, the small modes are finished on what is left, and a
second matrix product serves the other channel mode. So a sweep over all modes costs two
matrix products (a dimension tree, Phan, Tichavský & Cichocki, IEEE TSP 61(19), 2013).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxcp.arrays import Float
from onnxcp.chain import Kernel
from onnxcp.forms.solvers.device import CPU, Device, Held

Matrix = Float[np.ndarray, "_ R"]  # double precision, or single while sweeping
Gram = Float[np.ndarray, "R R"]
Factors = tuple[Matrix, ...]

WIDEST = 4  # an intermediate holds at most this many times the kernel's numbers


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """The tensor to fit, laid out for the two products of a sweep.

    `flat` is [K·A, B] with K kernel positions, A the smaller and B the larger channel
    mode: the larger one is contracted first, which leaves least to carry. `held` is the same
    array on the device where the products run.
    """

    flat: Float[np.ndarray, "KA B"]
    spatial: tuple[int, ...]
    narrow: int  # mode number (0 = T, 1 = S) of the smaller channel mode A
    energy: float  # ‖tensor‖²
    device: Device
    held: Held

    @classmethod
    def of(cls, kernel: Kernel, spatial: tuple[int, ...], device: Device = CPU) -> "Target":
        """Lay out a kernel [T, S, *window] whose positions are seen as `spatial` modes."""
        tensor = kernel.astype(np.float64).reshape(*kernel.shape[:2], -1)
        narrow = int(tensor.shape[0] > tensor.shape[1])
        planes = np.ascontiguousarray(np.moveaxis(tensor, -1, 0))
        if narrow == 1:
            planes = np.ascontiguousarray(planes.transpose(0, 2, 1))
        flat = planes.reshape(-1, planes.shape[2])
        energy = float(np.square(flat).sum())
        return cls(flat, spatial, narrow, energy, device, device.put(flat))

    def single(self) -> "Target":
        """The same in single precision: sweeps cost half, and resolve 1e-6 of the energy."""
        flat = self.flat.astype(np.float32)
        return replace(self, flat=flat, held=self.device.put(flat))

    def unit(self) -> "Target":
        """The tensor scaled to norm one."""
        flat = self.flat / np.sqrt(self.energy)
        return replace(self, flat=flat, energy=1.0, held=self.device.put(flat))

    @property
    def wide(self) -> int:
        return 1 - self.narrow

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the modes (T, S, *spatial)."""
        sizes = (len(self.flat) // int(np.prod(self.spatial)), self.flat.shape[1])
        return (sizes[self.narrow], sizes[self.wide], *self.spatial)

    def carry(self, wide: Matrix) -> "Carried":
        """The tensor contracted with the larger channel mode's factor, for two products.

        Held whole, or made anew block by block of columns where it would outgrow the
        kernel `WIDEST` times.
        """
        step = WIDEST * self.flat.shape[1]
        blocks = [slice(start, start + step) for start in range(0, wide.shape[1], step)]
        if len(blocks) == 1:
            held = [(blocks[0], self._contract(wide))]
            return Carried(self.device, lambda: iter(held))
        return Carried(
            self.device, lambda: ((block, self._contract(wide[:, block])) for block in blocks)
        )

    def _contract(self, wide: Matrix) -> Held:
        left = self.held @ self.device.put(wide)
        return left.reshape(int(np.prod(self.spatial)), -1, wide.shape[1])

    def wide_product(self, narrow: Matrix, positions: Matrix) -> Matrix:
        """MTTKRP of the larger channel mode; `positions` is [K, R]."""
        step = WIDEST * self.flat.shape[1]
        parts = []
        for start in range(0, narrow.shape[1], step):
            block = slice(start, start + step)
            window, channels = (self.device.put(f[:, block]) for f in (positions, narrow))
            pairs = window[:, None, :] * channels[None, :, :]
            parts.append(self.device.take(self.held.T @ pairs.reshape(len(self.flat), -1)))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """What is left of the tensor once the larger channel mode is contracted: [K, A, R]."""

    device: Device
    blocks: Callable[[], Iterator[tuple[slice, Held]]]

    def spatial_product(self, narrow: Matrix) -> Float[np.ndarray, "K R"]:
        """Both channel modes contracted, term by term."""
        parts = [self._reduced("kar,ar->kr", held, narrow[:, b]) for b, held in self.blocks()]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def narrow_product(self, positions: Matrix) -> Matrix:
        """MTTKRP of the smaller channel mode; `positions` is [K, R]."""
        parts = [self._reduced("kar,kr->ar", held, positions[:, b]) for b, held in self.blocks()]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _reduced(self, letters: str, held: Held, factor: Matrix) -> Matrix:
        return self.device.take(self.device.einsum(letters, held, self.device.put(factor)))


def single(factors: Factors) -> Factors:
    """Factors in single precision."""
    return tuple(f.astype(np.float32) for f in factors)


def double(factors: Factors) -> Factors:
    """Factors in double precision."""
    return tuple(f.astype(np.float64) for f in factors)


def positions(spatial: Sequence[Matrix]) -> Matrix:
    """Khatri-Rao product of the spatial factors: [K, R], small."""
    if len(spatial) == 1:
        return spatial[0]
    from tensorly.tenalg import khatri_rao

    product: Matrix = khatri_rao(list(spatial))
    return product


def dense(factors: Sequence[Matrix], shape: tuple[int, ...]) -> Kernel:
    """The kernel of a given shape that terms stand for."""
    from tensorly.cp_tensor import cp_to_tensor

    kernel: Kernel = cp_to_tensor((None, list(factors))).reshape(shape)
    return kernel


def spatial_mode(product: Float[np.ndarray, "K R"], spatial: Sequence[Matrix], mode: int) -> Matrix:
    """MTTKRP of one spatial mode, from the tensor already contracted with both channels."""
    if len(spatial) == 1:
        return product
    grid = np.moveaxis(product.reshape(*(len(f) for f in spatial), -1), mode, 0)
    others = [f for other, f in enumerate(spatial) if other != mode]
    left: Matrix = (grid.reshape(len(spatial[mode]), -1, grid.shape[-1]) * positions(others)).sum(1)
    return left


def grams_except(grams: Sequence[Gram], mode: int) -> Gram:
    """Elementwise product of the other modes' Gram matrices: the normal matrix of a mode."""
    product = np.ones_like(grams[0])
    for other, gram in enumerate(grams):
        if other != mode:
            product *= gram
    return product


def column_energy(factors: Sequence[Matrix]) -> Float[np.ndarray, "modes R"]:
    """‖column‖² of every column of every factor."""
    return np.stack([np.einsum("ir,ir->r", f, f) for f in factors])


def sensitivity_of(sizes: Sequence[int], energy: Float[np.ndarray, "modes R"]) -> float:
    """`sensitivity` from the mode sizes and column energies alone."""
    total = 0.0
    for mode, size in enumerate(sizes):
        total += size * float(np.delete(energy, mode, axis=0).prod(axis=0).sum())
    return total


def sensitivity(factors: Sequence[Matrix]) -> float:
    """Expected squared change of the tensor per unit variance of noise on the factors.

    Independent noise of variance σ² on every factor entry moves the tensor by
    sensitivity · σ² + O(σ⁴) in squared Frobenius norm:

        Σ_modes  size(mode) · Σ_r  Π_(other modes) ‖column r‖²

    A large value means large terms that cancel: the layer then breaks under float16,
    int8 or fine-tuning however small its fitting error. Compare only between factors of
    one tensor. Source: Tichavský et al., IEEE SPL 26(5), 2019; Phan et al. 2020,
    arXiv:2008.05441.
    """
    return sensitivity_of([len(f) for f in factors], column_energy(factors))


def balance(factors: Sequence[Matrix]) -> Factors:
    """The same terms, scaled so that `sensitivity` is least: ‖column‖² ∝ mode size.

    Equal norms are not best where sizes differ: with 512 channels against 9 positions,
    noise hits 512 entries of one factor and 9 of the other. A term with an empty column
    is set to zero in every mode.
    """
    sizes = np.array([len(f) for f in factors], dtype=np.float64)[:, None]
    norms = np.sqrt(column_energy(factors).astype(np.float64))
    with np.errstate(divide="ignore"):
        logs = np.log(norms) - 0.5 * np.log(sizes)
    wanted = np.exp(logs.mean(axis=0)) * np.sqrt(sizes)
    scale = np.divide(wanted, norms, out=np.zeros_like(norms), where=(norms > 0) & (wanted > 0))
    return tuple(f * s.astype(f.dtype) for f, s in zip(factors, scale, strict=True))


def squared_error(target: Target, product: Matrix, factor: Matrix, normal: Gram) -> float:
    """‖tensor − model‖² from one mode's MTTKRP, factor and normal matrix."""
    model = float(np.sum((factor.T @ factor) * normal))
    return max(target.energy - 2 * float(np.sum(product * factor)) + model, 0.0)
