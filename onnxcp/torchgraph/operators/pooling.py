"""Pooling over windows and over all positions. x is [N, channels, *positions]."""

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
    """MaxPool, without the positions of the maxima."""
    sliding = window(node, x.shape[2:], node.get("kernel_shape", []))
    pool = MAX[len(sliding.kernel) - 1]
    padding = sliding.begins
    fits = all(
        2 * b <= k for b, k in zip(padding, sliding.kernel, strict=True)
    )  # required by torch
    if not (sliding.is_centered and fits):
        x, padding = _padded(x, sliding, _smallest(x.dtype)), (0,) * len(padding)
    return pool(x, sliding.kernel, sliding.strides, padding, sliding.dilations)


def _smallest(dtype: torch.dtype) -> float:
    return -math.inf if dtype.is_floating_point else torch.iinfo(dtype).min


def _padded(x: Tensor, sliding: Window, value: float = 0.0) -> Tensor:
    ends = [end + more for end, more in zip(sliding.ends, sliding.extra, strict=True)]
    return pad(x, sliding.begins, ends, value)


def average_pool(node: Node, x: Tensor) -> Tensor:
    """AveragePool; padding counts only with `count_include_pad`."""
    sliding = window(node, x.shape[2:], node.get("kernel_shape", []))
    means = _means(_padded(x, sliding), sliding)
    if not any((*sliding.begins, *sliding.ends, *sliding.extra)):
        return means
    return means / _means(_counted(node, x, sliding), sliding)


def _counted(node: Node, x: Tensor, sliding: Window) -> Tensor:
    """1 for elements that count in an average, 0 for others."""
    ones = x.new_ones((1, 1, *x.shape[2:]))
    if not node.get("count_include_pad", 0):
        return _padded(ones, sliding)
    none = [0] * len(sliding.kernel)
    return pad(pad(ones, sliding.begins, sliding.ends, 1.0), none, sliding.extra)


def _means(x: Tensor, sliding: Window) -> Tensor:
    """The mean over each window of a padded input."""
    rank = len(sliding.kernel)
    if set(sliding.dilations) == {1}:
        return MEAN[rank - 1](x, sliding.kernel, sliding.strides)
    channels = x.shape[1]
    kernel = x.new_full((channels, 1, *sliding.kernel), 1 / math.prod(sliding.kernel))
    return CONV[rank - 1](x, kernel, None, sliding.strides, 0, sliding.dilations, channels)


def lp_pool(node: Node, x: Tensor) -> Tensor:
    """The p-norm over each window."""
    sliding, p = window(node, x.shape[2:], node.get("kernel_shape", [])), node.get("p", 2)
    sums = _means(_padded(x.abs().pow(p), sliding), sliding) * math.prod(sliding.kernel)
    return sums.pow(1 / p)


def _positions(x: Tensor) -> list[int]:
    return list(range(2, x.ndim))


def global_average_pool(x: Tensor) -> Tensor:
    """The mean over all positions, whose axes keep size 1."""
    return x.mean(_positions(x), keepdim=True) if x.ndim > 2 else x


def global_max_pool(x: Tensor) -> Tensor:
    """The maximum over all positions, whose axes keep size 1."""
    return x.amax(_positions(x), keepdim=True) if x.ndim > 2 else x


def global_lp_pool(node: Node, x: Tensor) -> Tensor:
    """The p-norm over all positions, whose axes keep size 1."""
    p = node.get("p", 2)
    return x.abs().pow(p).sum(_positions(x), keepdim=True).pow(1 / p)
