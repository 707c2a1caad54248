"""Resize and Upsample: one axis after the other, as weighted sums of gathered elements.

The coordinate transformations are those of the ONNX standard; torch's interpolation has fewer.
Where the standard is ambiguous, ONNX Runtime is followed: new sizes are whole in all
transformations but one, and coordinates are in single precision, which decides ties.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onnxcp.torchgraph.node import Node


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis to resize, with its old and new size; `roi` is the part to crop, 0 to 1."""

    number: int
    old: int
    new: int
    scale: float
    roi: tuple[float, float] = (0.0, 1.0)

    @property
    def exact(self) -> float:
        """The new size before rounding."""
        return self.scale * self.old

    @property
    def is_kept(self) -> bool:
        """Whether the axis stays as it is."""
        return self.scale == 1 and self.old == self.new and self.roi == (0.0, 1.0)


def upsample(node: Node, x: Tensor, scales: Tensor | None = None) -> Tensor:
    """Upsample by one scale per axis, which is an attribute in older opsets, then an input."""
    factors = node.get("scales", None) if scales is None else scales.tolist()
    for axis in _scaled(x, range(x.ndim), factors):
        x = _resized(node, x, axis)
    return x


def resize(
    node: Node,
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """Resize by scales or to sizes, of all axes or of those in the attribute `axes`."""
    if node.opset == 10:  # its second and last input is the scales
        return upsample(node, x, roi)
    numbers = [a % x.ndim for a in node.get("axes", None) or range(x.ndim)]
    if scales is not None and scales.numel():
        axes = _scaled(x, numbers, scales.tolist())
    else:
        assert sizes is not None, "a Resize has scales or sizes"
        axes = _sized(node, x, numbers, sizes.tolist())
    if node.get("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        assert roi is not None, "tf_crop_and_resize has a region"
        axes = _cropped(axes, roi.tolist())
    inside = x.new_ones(())
    for axis in axes:
        x, inside = _resized(node, x, axis), inside * _inside(node, x, axis)
    if inside.ndim:
        return torch.where(inside > 0, x, node.get("extrapolation_value", 0.0))
    return x


def _scaled(x: Tensor, numbers: Sequence[int], scales: Sequence[float]) -> list[Axis]:
    pairs = zip(numbers, scales, strict=True)
    return [Axis(n, x.shape[n], math.floor(x.shape[n] * s), s) for n, s in pairs]


def _sized(node: Node, x: Tensor, numbers: Sequence[int], sizes: Sequence[int]) -> list[Axis]:
    """Axes of the given sizes, or with one scale for all if the aspect ratio is kept."""
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    scales = [size / x.shape[n] for n, size in zip(numbers, sizes, strict=True)]
    if policy != "stretch":
        common = min(scales) if policy == "not_larger" else max(scales)
        scales = [common] * len(numbers)
        sizes = [math.floor(common * x.shape[n] + 0.5) for n in numbers]
    each = zip(numbers, sizes, scales, strict=True)
    return [Axis(n, x.shape[n], size, scale) for n, size, scale in each]


def _cropped(axes: Sequence[Axis], roi: Sequence[float]) -> list[Axis]:
    ends = zip(roi[: len(axes)], roi[len(axes) :], strict=True)
    return [Axis(a.number, a.old, a.new, a.scale, both) for a, both in zip(axes, ends, strict=True)]


def _coordinates(mode: str, axis: Axis) -> np.ndarray:
    """The coordinate of each new element among the old ones."""
    y, last, scale = np.arange(axis.new, dtype=np.float32), axis.old - 1, np.float32(axis.scale)
    if mode == "align_corners":
        return y * last / max(1, axis.new - 1)
    if mode == "asymmetric":
        return y / scale
    if mode == "tf_crop_and_resize":
        start, end = axis.roi
        part = (end - start) * last
        inner = y * part / (axis.new - 1) if axis.new > 1 else y + part / 2
        return start * last + inner
    if mode == "pytorch_half_pixel" and axis.new == 1:
        return y
    centered = (y + np.float32(0.5)) / scale - np.float32(0.5)
    if mode == "half_pixel_symmetric":
        return centered + axis.old / 2 * (1 - axis.new / axis.exact)
    return centered


def _mode(node: Node) -> str:
    old = "asymmetric" if node.opset <= 10 else "half_pixel"
    mode: str = node.get("coordinate_transformation_mode", old)
    return mode


def _resized(node: Node, x: Tensor, axis: Axis) -> Tensor:
    if axis.is_kept:
        return x
    coordinates = _coordinates(_mode(node), axis)
    if node.get("mode", "nearest") == "nearest":
        return _gathered(x, axis, _nearest(node, axis, coordinates))
    positions, weights = _taps(node, axis, coordinates)
    shape = [1] * x.ndim
    shape[axis.number] = axis.new
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for position, weight in zip(positions.T, weights.T, strict=True):
        factor = torch.tensor(weight, dtype=x.dtype, device=x.device).reshape(shape)
        total = total + _gathered(x, axis, position) * factor
    return total


def _gathered(x: Tensor, axis: Axis, positions: np.ndarray) -> Tensor:
    inside = np.clip(positions, 0, axis.old - 1).astype(np.int64)
    return x.index_select(axis.number, torch.tensor(inside, device=x.device))


def _nearest(node: Node, axis: Axis, at: np.ndarray) -> np.ndarray:
    mode = node.get("nearest_mode", "round_prefer_floor")
    if node.opset <= 10:  # as in ONNX Runtime: the standard did not define it
        mode = "ceil" if axis.scale < 1 else "floor"
    return ROUNDED[mode](at)


ROUNDED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _taps(node: Node, axis: Axis, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions and weights [new, taps] of the old elements for each new one."""
    cubic = node.get("mode", "nearest") == "cubic"
    antialias_scale = min(axis.scale, 1.0) if node.get("antialias", 0) else 1.0
    first = math.floor((-2 if cubic else -1) / antialias_scale) + 1
    positions = np.floor(at)[:, None] + np.arange(first, 2 - first)
    distance = np.abs(positions - at[:, None]) * antialias_scale
    weights = (
        _cubic(distance, node.get("cubic_coeff_a", -0.75)) if cubic else np.clip(1 - distance, 0, 1)
    )
    if node.get("exclude_outside", 0):
        weights = weights * ((positions >= 0) & (positions < axis.old))
    if node.get("exclude_outside", 0) or antialias_scale < 1:
        weights = weights / weights.sum(1, keepdims=True)
    return positions, weights


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel at a distance, with parameter a."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _inside(node: Node, x: Tensor, axis: Axis) -> Tensor:
    """1 for new elements inside the old ones, else 0; a scalar 1 without a region."""
    if _mode(node) != "tf_crop_and_resize":
        return x.new_ones(())
    at = _coordinates(_mode(node), axis)
    shape = [1] * x.ndim
    shape[axis.number] = axis.new
    is_inside = (at >= 0) & (at <= axis.old - 1)
    return torch.tensor(is_inside, dtype=x.dtype, device=x.device).reshape(shape)
