"""Operators that ONNX removed with version 1.3 and ONNX Runtime still runs."""

import torch
from torch import Tensor

from onnxcp.torchgraph.node import Node


def affine(node: Node, x: Tensor) -> Tensor:
    """alpha·x + beta."""
    return x * node.get("alpha", 1.0) + node.get("beta", 0.0)


def crop(node: Node, x: Tensor) -> Tensor:
    """Images without borders on all sides, or of a given size from the upper left border on."""
    left, top, right, bottom = node.get("border", [0] * 4)
    height, width = node.get("scale", None) or (
        x.shape[-2] - top - bottom,
        x.shape[-1] - left - right,
    )
    return x[..., top : top + height, left : left + width]


def image_scaler(node: Node, x: Tensor) -> Tensor:
    """scale·x plus one bias per channel."""
    bias = torch.tensor(list(node.get("bias", [])), dtype=x.dtype, device=x.device)
    return x * node.get("scale", 1.0) + bias.reshape(-1, 1, 1)


def scaled_tanh(node: Node, x: Tensor) -> Tensor:
    """alpha·tanh(beta·x)."""
    return node.get("alpha", 1.0) * torch.tanh(x * node.get("beta", 1.0))


def parametric_softplus(node: Node, x: Tensor) -> Tensor:
    """alpha·log(1 + exp(beta·x)), without overflow."""
    inner = x * node.get("beta", 1.0)
    return node.get("alpha", 1.0) * torch.logaddexp(inner, torch.zeros_like(inner))
