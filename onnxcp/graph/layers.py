"""The properties of a model's layers for tables: shape, stride, multiply-adds of one sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxcp.chain import Sizes
from onnxcp.graph import products
from onnxcp.graph.constants import Constants
from onnxcp.graph.operators import operator
from onnxcp.graph.shapes import Shapes

WEIGHT_PLACES = {"QLinearConv": 3}  # among a node's inputs, where it is not the second


@dataclass(frozen=True, slots=True)
class Layer:
    """The properties of a node for a table; None for unknown ones."""

    name: str
    op: str
    shape: tuple[int, ...] | None = None  # of the weight
    strides: tuple[int, ...] = ()
    group: int = 1
    macs: int | None = None
    parameters: int = 0


def weight_of(node: onnx.NodeProto) -> str:
    """The name of the weight that a node reads, "" where it reads none."""
    place = WEIGHT_PLACES.get(operator(node), 1)
    return str(node.input[place]) if len(node.input) > place else ""


def layer_of(node: onnx.NodeProto, name: str, constants: Constants, shapes: Shapes) -> Layer:
    """The properties of a node, as far as `shapes` and stored tensors determine them."""
    attributes = {a.name: a for a in node.attribute}
    first = products.stored_first(node, constants)
    weight = node.input[0] if first else weight_of(node)
    stored = constants.find(weight)
    shape = tuple(stored.dims) if stored is not None else shapes.get(weight)
    strides = tuple(attributes["strides"].ints) if "strides" in attributes else ()
    group = attributes["group"].i if "group" in attributes else 1
    size = int(np.prod(shape)) if shape else 0
    result = shapes.get(next(iter(node.output), ""))
    macs = _macs(operator(node), size, shape, result, first=first) if size and result else None
    return Layer(name, operator(node), shape, strides, group, macs, size)


def _macs(op: str, size: int, shape: Sizes | None, result: Sequence[int], *, first: bool) -> int:
    """Multiply-adds of one sample: every weight once per output position."""
    if first:
        return size * int(np.prod((*result[1:-2], *result[-1:])))
    if op in products.PRODUCTS:
        return size * int(np.prod(result[1:-1]))
    if op == "ConvTranspose" and shape:
        return size * int(np.prod(result[2:])) // max(1, int(np.prod(shape[2:])))
    return size * int(np.prod(result[2:]))
