"""Normalizations by stored statistics or by those of the input. x is [N, channels, *positions]."""

import torch
from torch import Tensor
from torch.nn import functional

from onnxcp.torchgraph.node import Node

EPSILON = 1e-5  # ONNX's default


def batch_norm(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
) -> Tensor:
    """BatchNormalization with stored statistics, in any mode of the module."""
    mean, var, scale, bias = (t.to(x.dtype) for t in (mean, var, scale, bias))
    return functional.batch_norm(x, mean, var, scale, bias, eps=node.get("epsilon", EPSILON))


def instance_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """InstanceNormalization: statistics per sample and channel."""
    return torch.group_norm(x, x.shape[1], scale, bias, node.get("epsilon", EPSILON))


def group_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """GroupNormalization; scale and bias are per group before opset 21, then per channel."""
    groups = node.get("num_groups", 1)
    if node.opset < 21:
        repeats = x.shape[1] // groups
        scale, bias = scale.repeat_interleave(repeats), bias.repeat_interleave(repeats)
    return torch.group_norm(x, groups, scale, bias, node.get("epsilon", EPSILON))


def layer_norm(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    """LayerNormalization over the axes from `axis` on; mean and 1/σ if they are outputs."""
    axes = list(range(node.get("axis", -1) % x.ndim, x.ndim))
    var, mean = torch.var_mean(x, axes, unbiased=False, keepdim=True)
    factor = torch.rsqrt(var + node.get("epsilon", EPSILON))
    y = (x - mean) * factor * scale
    return (y if bias is None else y + bias, mean, factor)[: len(node.outputs)]


def rms_norm(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    """x over its root mean square along the axes from `axis` on, times scale."""
    axes = list(range(node.get("axis", -1) % x.ndim, x.ndim))
    squares = (x * x).mean(axes, keepdim=True)
    return x * torch.rsqrt(squares + node.get("epsilon", EPSILON)) * scale


def mean_variance(node: Node, x: Tensor) -> Tensor:
    """x with zero mean and unit variance over `axes`."""
    axes = node.get("axes", [0, 2, 3])
    var, mean = torch.var_mean(x, axes, unbiased=False, keepdim=True)
    return (x - mean) / (var.sqrt() + 1e-9)  # the operator's own constant


def lrn(node: Node, x: Tensor) -> Tensor:
    """Local response normalization across channels; an even window reaches further ahead."""
    size = node.get("size", 1)
    ends = [0] * (2 * (x.ndim - 2)) + [(size - 1) // 2, size // 2]
    squares = functional.pad(x * x, ends).unfold(1, size, 1).sum(-1)
    scaled = node.get("bias", 1.0) + node.get("alpha", 1e-4) / size * squares
    return x / scaled.pow(node.get("beta", 0.75))


def lp_norm(node: Node, x: Tensor) -> Tensor:
    """x over its p-norm along an axis; 0 where the norm is 0."""
    norm = torch.linalg.vector_norm(x, node.get("p", 2), node.get("axis", -1), keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / torch.where(norm == 0, 1, norm))
