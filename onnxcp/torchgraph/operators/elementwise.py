"""Elementwise arithmetic, comparisons and casts."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from onnxcp.torchgraph.node import TYPES, Node

Function = Callable[..., Any]


def plain(function: Function) -> Function:
    """The row of an operator without attributes that is the same in all opsets."""
    return lambda _, *inputs: function(*inputs)


def pairwise(function: Function) -> Function:
    """The row of an operator with any number of inputs, applied from left to right."""
    return lambda _, *inputs: functools.reduce(function, inputs)


def mean(*inputs: Tensor) -> Tensor:
    """The mean of any number of inputs, which broadcast."""
    return functools.reduce(torch.add, inputs) / len(inputs)


def div(a: Tensor, b: Tensor) -> Tensor:
    """a / b; integers are rounded towards zero, as in C."""
    return torch.div(a, b, rounding_mode=None if a.dtype.is_floating_point else "trunc")


def power(a: Tensor, b: Tensor) -> Tensor:
    """a to the power b, in the type of a."""
    return torch.pow(a, b).to(a.dtype)


def mod(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """The remainder with the sign of b, or with `fmod` the sign of a."""
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


def is_inf(node: Node, x: Tensor) -> Tensor:
    """Whether each element is infinite; attributes choose the signs that count."""
    infinite = torch.zeros_like(x, dtype=torch.bool)
    if node.get("detect_negative", 1):
        infinite = infinite | torch.isneginf(x)
    return infinite | torch.isposinf(x) if node.get("detect_positive", 1) else infinite


def clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """x limited to low..high; before opset 11 the limits are attributes."""
    if node.opset >= 11:
        return x if low is None and high is None else torch.clamp(x, low, high)
    bounds = node.get("min", None), node.get("max", None)
    return x if bounds == (None, None) else torch.clamp(x, *bounds)


def cast(node: Node, x: Tensor) -> Tensor:
    """x in the type of the attribute `to`, which must be in TYPES."""
    return x.to(TYPES[node.get("to", 0)])


def cast_like(x: Tensor, like: Tensor) -> Tensor:
    """x in the type of another tensor."""
    return x.to(like.dtype)


def dropout(
    node: Node, x: Tensor, _: Tensor | None = None, training: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The identity, and a mask that keeps everything if that is an output.

    Raises:
        ValueError: the node is in training mode.
    """
    if training is not None and training.item():
        raise ValueError("Dropout in training mode is not covered")
    if len(node.outputs) == 1:
        return (x,)
    return x, torch.ones_like(x, dtype=torch.bool if node.opset >= 10 else x.dtype)
