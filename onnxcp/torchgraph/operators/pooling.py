"""Poolings, over windows and over all positions."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from onnxcp.torchgraph.node import Node
from onnxcp.torchgraph.operators.window import Window, pad, window

MAX = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
MEAN = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)
CONV = (functional.conv1d, functional.conv2d, functional.conv3d)


def max_pool(node: Node, x: Tensor) -> Tensor:
    shown = window(node, x.shape[2:], node.get("kernel_shape", []))
    pool = MAX[len(shown.kernel) - 1]
    padding = shown.begins
    fits = all(2 * b <= k for b, k in zip(padding, shown.kernel, strict=True))  # torch's rule
    if not (shown.is_centred and fits):
        x, padding = _padded(x, shown, _least(x.dtype)), (0,) * len(padding)
    return pool(x, shown.kernel, shown.strides, padding, shown.dilations)


def _least(dtype: torch.dtype) -> float:
    return -math.inf if dtype.is_floating_point else torch.iinfo(dtype).min


def _padded(x: Tensor, shown: Window, value: float = 0.0) -> Tensor:
    ends = [end + more for end, more in zip(shown.ends, shown.extra, strict=True)]
    return pad(x, shown.begins, ends, value)


def average_pool(node: Node, x: Tensor) -> Tensor:
    shown = window(node, x.shape[2:], node.get("kernel_shape", []))
    means = _means(_padded(x, shown), shown)
    if not any((*shown.begins, *shown.ends, *shown.extra)):
        return means
    return means / _means(_counted(node, x, shown), shown)


def _counted(node: Node, x: Tensor, shown: Window) -> Tensor:
    """1 where an element counts in an average, 0 where it does not."""
    ones = x.new_ones((1, 1, *x.shape[2:]))
    if not node.get("count_include_pad", 0):
        return _padded(ones, shown)
    none = [0] * len(shown.kernel)
    return pad(pad(ones, shown.begins, shown.ends, 1.0), none, shown.extra)


def _means(x: Tensor, shown: Window) -> Tensor:
    """Over each window of an input that is padded already."""
    rank = len(shown.kernel)
    if set(shown.dilations) == {1}:
        return MEAN[rank - 1](x, shown.kernel, shown.strides)
    channels = x.shape[1]
    kernel = x.new_full((channels, 1, *shown.kernel), 1 / math.prod(shown.kernel))
    return CONV[rank - 1](x, kernel, None, shown.strides, 0, shown.dilations, channels)


def lp_pool(node: Node, x: Tensor) -> Tensor:
    shown, p = window(node, x.shape[2:], node.get("kernel_shape", [])), node.get("p", 2)
    sums = _means(_padded(x.abs().pow(p), shown), shown) * math.prod(shown.kernel)
    return sums.pow(1 / p)


def _positions(x: Tensor) -> list[int]:
    return list(range(2, x.ndim))


def global_average_pool(x: Tensor) -> Tensor:
    return x.mean(_positions(x), keepdim=True) if x.ndim > 2 else x


def global_max_pool(x: Tensor) -> Tensor:
    return x.amax(_positions(x), keepdim=True) if x.ndim > 2 else x


def global_lp_pool(node: Node, x: Tensor) -> Tensor:
    p = node.get("p", 2)
    return x.abs().pow(p).sum(_positions(x), keepdim=True).pow(1 / p)
