"""Reductions over axes, and positions of extreme elements along an axis.

A reduction takes the input, the axes, and whether reduced axes keep size 1.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from onnxcp.torchgraph.node import Node

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def over_axes(function: Reduction) -> Callable[..., Tensor]:
    """The row of a reduction; its axes are an attribute in older opsets, then an input."""

    def reduce(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = node.get("axes", None) if axes is None else axes.tolist()
        if not chosen and node.get("noop_with_empty_axes", 0):
            return function(x.unsqueeze(0), [0], False)
        return function(x, chosen or list(range(x.ndim)), bool(node.get("keepdims", 1)))

    return reduce


def total(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """The sum, in the type of x."""
    return x.sum(axes, keepdim=keep).to(x.dtype)


def mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """The mean, in the type of x; integers are truncated."""
    if x.dtype.is_floating_point:
        return x.mean(axes, keepdim=keep)
    return x.double().mean(axes, keepdim=keep).to(x.dtype)


def largest(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """The maximum."""
    return torch.amax(x, axes, keepdim=keep)


def smallest(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """The minimum."""
    return torch.amin(x, axes, keepdim=keep)


def product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """The product, in the type of x."""
    dtype = x.dtype
    for axis in sorted((axis % max(1, x.ndim) for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x.to(dtype)


def l1(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """The sum of absolute values."""
    return total(x.abs(), axes, keep)


def l2(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """The root of the sum of squares."""
    if x.dtype.is_floating_point:
        return torch.linalg.vector_norm(x, dim=axes, keepdim=keep)
    return total(x.double() ** 2, axes, keep).sqrt().to(x.dtype)


def sum_square(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """The sum of squares."""
    return total(x * x, axes, keep)


def log_sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """The logarithm of the sum."""
    return total(x, axes, keep).log()


def log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """The logarithm of the sum of exponentials, without overflow."""
    return torch.logsumexp(x, axes, keepdim=keep)


def arg_max(node: Node, x: Tensor) -> Tensor:
    """The index of the maximum along an axis; of equal ones the first, or last if asked."""
    return _index(node, x, torch.argmax)


def arg_min(node: Node, x: Tensor) -> Tensor:
    """The index of the minimum along an axis; of equal ones the first, or last if asked."""
    return _index(node, x, torch.argmin)


def _index(node: Node, x: Tensor, function: Callable[..., Tensor]) -> Tensor:
    axis, keep = node.get("axis", 0), bool(node.get("keepdims", 1))
    if not node.get("select_last_index", 0):
        return function(x, axis, keep)
    return x.shape[axis] - 1 - function(x.flip(axis), axis, keep)


def top_k(node: Node, x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k largest or smallest elements along an axis, and their indices.

    Equal elements keep their order.
    """
    axis = node.get("axis", -1)
    count = node.get("k", 1) if k is None else k.item()
    largest_first = bool(node.get("largest", 1))
    values, indices = torch.sort(x, dim=axis, descending=largest_first, stable=True)
    return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)
