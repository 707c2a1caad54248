"""Elementwise arithmetic with stored numbers, read as scale · x + shift."""

from dataclasses import dataclass

import numpy as np

from onnxcp.graph.operators import operator
from onnxcp.graph.passes.edit import Edit, Node

ARITHMETIC = ("Mul", "Div", "Add", "Sub")


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """scale · source + shift, as one node computes it; both are float64 of one number, or
    [C] for one a channel."""

    source: str
    scale: np.ndarray
    shift: np.ndarray


def affine(edit: Edit, node: Node, channels: int | None = None) -> Affine | None:
    """What a node adds to or multiplies its one computed input by; None where the node does
    anything else. Numbers by channel are read where it is known how many `channels` there are in
    axis 1 of a tensor [N, C, H, W]."""
    if operator(node) not in ARITHMETIC or len(node.input) != 2:
        return None
    left, right = (edit.value(name) for name in node.input)
    if (left is None) == (right is None):
        return None
    stored = _numbers(right if left is None else left, channels)
    if stored is None:
        return None
    source = node.input[0 if left is None else 1]
    one, zero = np.ones(1), np.zeros(1)
    if operator(node) == "Mul":
        return Affine(source, stored, zero)
    if operator(node) == "Add":
        return Affine(source, one, stored)
    if operator(node) == "Sub":
        return Affine(source, one, -stored) if left is None else Affine(source, -one, stored)
    if left is not None or not stored.all():
        return None  # a quotient by x, or by zero
    return Affine(source, 1 / stored, zero)


def after(inner: Affine, outer: Affine) -> Affine:
    """`outer` of `inner`, as one."""
    return Affine(inner.source, outer.scale * inner.scale, outer.scale * inner.shift + outer.shift)


def _numbers(values: np.ndarray | None, channels: int | None) -> np.ndarray | None:
    """Finite values as float64 [1], or [C] where they go along axis 1 of [N, C, H, W]."""
    if values is None or values.dtype.kind != "f" or not np.isfinite(values).all():
        return None
    if values.size == 1 and values.ndim <= 1:
        return values.reshape(1).astype(np.float64)
    shape = (1,) * (4 - values.ndim) + values.shape
    if len(shape) == 4 and shape == (1, channels, 1, 1):
        return values.reshape(-1).astype(np.float64)
    return None
