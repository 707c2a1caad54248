"""A quantized model without its rounding.

Stored integers become the floats that they represent, and activations are clipped to their ranges
without rounding. Ranges stay, as Clip nodes, because quantizers replace ReLU and Clip by them.
Everything else, except pairs of QuantizeLinear and DequantizeLinear with one scale, stays as it is,
and so do subgraphs.
"""

from dataclasses import dataclass

import numpy as np
import onnx

from onnxcp.graph.constants import Constants
from onnxcp.graph.index import read_names
from onnxcp.graph.operators import DEQUANTIZE, QUANTIZE, operator
from onnxcp.quantization.precision import all_nodes, is_integer, opset_of

TENSORS = 11  # the opset from which Clip reads its limits as tensors
WIDTHS = ("int8", "uint8", "int16", "uint16")
FLOATS = ("float16", "float32", "float64")


def dequantised(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model without rounding; tensors keep their names."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    constants, opset = Constants(proto.graph), opset_of(proto)
    outputs = {output.name for output in proto.graph.output}
    del made.graph.node[:]
    for node in proto.graph.node:
        step = _step(node, constants) if operator(node) in DEQUANTIZE else None
        values = None if step is None or outputs & set(node.output) else step.values(constants)
        if values is not None:
            made.graph.initializer.append(onnx.numpy_helper.from_array(values, node.output[0]))
        elif step is not None and step.source and step.scale.size == 1:
            made.graph.node.append(_clip(node, step, made.graph, opset))
        else:
            made.graph.node.append(node)
    _drop_unread(made.graph)
    return made


def is_in_pairs(proto: onnx.ModelProto) -> bool:
    """Whether a model is quantized, and only by nodes that `dequantised` can remove."""
    kinds = {operator(node) for node in all_nodes(proto) if is_integer(node)}
    return bool(kinds) and kinds <= {*QUANTIZE, *DEQUANTIZE}


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """The quantization that a DequantizeLinear reverses: of floats `source`, or stored integers."""

    scale: np.ndarray
    zero: np.ndarray
    axis: int
    source: str | None
    integers: np.ndarray | None

    def values(self, constants: Constants) -> np.ndarray | None:
        """The floats that stored integers represent; None if they are not stored."""
        floats = None if self.source is None else _array(self.source, constants)
        integers = self.integers
        if floats is not None:
            low, high = _limits(self.zero.dtype)
            scaled = np.rint(floats / self._spread(self.scale, floats.ndim))
            integers = np.clip(scaled + self._spread(self.zero, floats.ndim), low, high)
        if integers is None:
            return None
        steps = integers.astype(np.int64) - self._spread(self.zero, integers.ndim).astype(np.int64)
        found: np.ndarray = steps.astype(self.scale.dtype) * self._spread(self.scale, steps.ndim)
        return found

    def _spread(self, values: np.ndarray, dimensions: int) -> np.ndarray:
        """One number per position on the axis, or one for all, in a shape that broadcasts."""
        if values.size == 1:
            return values.reshape(())
        shape = [1] * dimensions
        shape[self.axis] = -1
        return values.reshape(shape)

    def range(self) -> tuple[float, float]:
        """The smallest and the largest float that the integers can represent."""
        low, high = _limits(self.zero.dtype)
        scale, zero = float(self.scale.item()), int(self.zero.item())
        return (low - zero) * scale, (high - zero) * scale


def _step(node: onnx.NodeProto, constants: Constants) -> _Step | None:
    scale = _array(node.input[1], constants)
    numbers = {a.name: a.i for a in node.attribute}
    if scale is None or str(scale.dtype) not in FLOATS or numbers.get("block_size"):
        return None
    maker = constants.makers.get(node.input[0])
    is_pair = maker is not None and operator(maker) in QUANTIZE
    integers = None if is_pair else _array(node.input[0], constants)
    zero = _zero(node, scale, integers, constants)
    if zero is None or (is_pair and str(zero.dtype) not in WIDTHS):
        return None
    if maker is None or not is_pair:
        known = integers is not None and str(integers.dtype) in (*WIDTHS, "int32")
        return _Step(scale, zero, numbers.get("axis", 1), None, integers) if known else None
    same = _array(maker.input[1], constants)
    is_one = same is not None and np.array_equal(same, scale)
    return _Step(scale, zero, numbers.get("axis", 1), maker.input[0], None) if is_one else None


def _zero(
    node: onnx.NodeProto, scale: np.ndarray, integers: np.ndarray | None, constants: Constants
) -> np.ndarray | None:
    """The zero point; by default 0, of ONNX's default type."""
    if len(node.input) > 2 and node.input[2]:
        return _array(node.input[2], constants)
    return np.zeros(scale.shape, np.uint8 if integers is None else integers.dtype)


def _array(name: str, constants: Constants) -> np.ndarray | None:
    tensor = constants.find(name)
    return None if tensor is None else onnx.numpy_helper.to_array(tensor)


def _limits(dtype: np.dtype) -> tuple[int, int]:
    found = np.iinfo(dtype)
    return int(found.min), int(found.max)


def _clip(node: onnx.NodeProto, step: _Step, graph: onnx.GraphProto, opset: int) -> onnx.NodeProto:
    """The Clip node that replaces a pair, with its range."""
    (low, high), source, output = step.range(), step.source or "", node.output[0]
    make = onnx.helper.make_node
    if opset < TENSORS:
        return make("Clip", [source], [output], node.name, min=low, max=high)
    names = [f"{output}/least", f"{output}/largest"]
    for name, value in zip(names, (low, high), strict=True):
        limit = np.array(value, step.scale.dtype)
        graph.initializer.append(onnx.numpy_helper.from_array(limit, name))
    return make("Clip", [source, *names], [output], node.name)


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Remove tensors that only removed DequantizeLinear nodes read."""
    read = read_names(graph)
    for place, node in reversed(list(enumerate(graph.node))):
        if operator(node) in QUANTIZE and not read & set(node.output):
            del graph.node[place]
    read = read_names(graph)
    for place, tensor in reversed(list(enumerate(graph.initializer))):
        if tensor.name not in read:
            del graph.initializer[place]
