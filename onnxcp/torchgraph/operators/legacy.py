"""Operators that ONNX had before version 1.3 and ONNX Runtime still runs."""

import torch
from torch import Tensor

from onnxcp.torchgraph.node import Node


def affine(node: Node, x: Tensor) -> Tensor:
    return x * node.get("alpha", 1.0) + node.get("beta", 0.0)


def crop(node: Node, x: Tensor) -> Tensor:
    """By borders on all sides, or from the upper left one to a size."""
    left, top, right, bottom = node.get("border", [0] * 4)
    height, width = node.get("scale", None) or (
        x.shape[-2] - top - bottom,
        x.shape[-1] - left - right,
    )
    return x[..., top : top + height, left : left + width]


def image_scaler(node: Node, x: Tensor) -> Tensor:
    bias = torch.tensor(list(node.get("bias", [])), dtype=x.dtype, device=x.device)
    return x * node.get("scale", 1.0) + bias.reshape(-1, 1, 1)


def scaled_tanh(node: Node, x: Tensor) -> Tensor:
    return node.get("alpha", 1.0) * torch.tanh(x * node.get("beta", 1.0))


def parametric_softplus(node: Node, x: Tensor) -> Tensor:
    inner = x * node.get("beta", 1.0)
    return node.get("alpha", 1.0) * torch.logaddexp(inner, torch.zeros_like(inner))
