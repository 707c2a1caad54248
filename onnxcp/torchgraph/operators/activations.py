"""Activation functions, and Softmax over an axis.

Each function takes the node, for its attributes and opset, and the input tensor of any shape.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from onnxcp.torchgraph.node import Node

SELU = 1.6732631921768188, 1.0507010221481323  # alpha and gamma: ONNX's defaults


def leaky_relu(node: Node, x: Tensor) -> Tensor:
    """x, or alpha·x if x is negative."""
    return functional.leaky_relu(x, node.get("alpha", 0.01))


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """x, or slope·x if x is negative; `slope` broadcasts to x."""
    return torch.where(x >= 0, x, slope * x)


def elu(node: Node, x: Tensor) -> Tensor:
    """x, or alpha·(exp(x) − 1) if x is negative."""
    return functional.elu(x, node.get("alpha", 1.0))


def selu(node: Node, x: Tensor) -> Tensor:
    """gamma·ELU(x), with ONNX's default constants."""
    return node.get("gamma", SELU[1]) * functional.elu(x, node.get("alpha", SELU[0]))


def celu(node: Node, x: Tensor) -> Tensor:
    """x, or alpha·(exp(x / alpha) − 1) if x is negative."""
    return functional.celu(x, node.get("alpha", 1.0))


def hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    """alpha·x + beta, clamped to 0..1."""
    return torch.clamp(x * node.get("alpha", 0.2) + node.get("beta", 0.5), 0, 1)


def swish(node: Node, x: Tensor) -> Tensor:
    """x·sigmoid(alpha·x), with alpha 1 by default."""
    return x * torch.sigmoid(x * node.get("alpha", 1.0))


def quick_gelu(node: Node, x: Tensor) -> Tensor:
    """x·sigmoid(alpha·x), with alpha 1.702 by default."""
    return x * torch.sigmoid(x * node.get("alpha", 1.702))


def gelu(node: Node, x: Tensor) -> Tensor:
    """GELU, exact or by tanh as the attribute `approximate` says."""
    return functional.gelu(x, approximate=node.get("approximate", "none"))


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), without overflow."""
    return torch.logaddexp(x, torch.zeros_like(x))


def thresholded_relu(node: Node, x: Tensor) -> Tensor:
    """x if it exceeds alpha, else 0."""
    return torch.where(x > node.get("alpha", 1.0), x, torch.zeros_like(x))


def shrink(node: Node, x: Tensor) -> Tensor:
    """x moved towards 0 by `bias`; 0 between −lambd and lambd."""
    bias, edge = node.get("bias", 0.0), node.get("lambd", 0.5)
    zero = torch.zeros_like(x)
    return torch.where(x > edge, x - bias, torch.where(x < -edge, x + bias, zero))


def softmax(node: Node, x: Tensor) -> Tensor:
    """Softmax over one axis, or before opset 13 over all axes from it on."""
    return _over_axis(node, x, torch.softmax)


def log_softmax(node: Node, x: Tensor) -> Tensor:
    """The logarithm of `softmax`, computed without underflow."""
    return _over_axis(node, x, torch.log_softmax)


def _over_axis(node: Node, x: Tensor, function: Callable[..., Tensor]) -> Tensor:
    """Before opset 13, all axes from the given one on are flattened into one."""
    if node.opset >= 13:
        return function(x, node.get("axis", -1))
    axis = node.get("axis", 1) % max(1, x.ndim)
    rows = math.prod(x.shape[:axis])
    return function(x.reshape(rows, -1), 1).reshape(x.shape)
