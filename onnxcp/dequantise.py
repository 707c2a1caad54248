"""The float model that an int8 one stands for: QuantizeLinear and DequantizeLinear taken out.

Weights and biases become the floats that their integers stand for. Of activations the rounding
goes, and what lies outside the range of their integers is still cut off, by a Clip: ReLU mostly
has no other node in an int8 model. So what such a model and its int8 one differ by is rounding
of activations; what it and the float original differ by is all the rest.
"""

from collections.abc import Mapping

import numpy as np
import onnx

from onnxcp.constants import Constants
from onnxcp.errors import ModelError
from onnxcp.precision import all_nodes, is_integer
from onnxcp.rewrite import read_names

ROUNDS, BACK = "QuantizeLinear", "DequantizeLinear"


def dequantised(proto: onnx.ModelProto, where: str = "the model") -> onnx.ModelProto:
    """The float model of one with QuantizeLinear and DequantizeLinear, which is not changed; a
    model without them comes out as a copy.

    Raises:
        ModelError: it computes in integers otherwise, or rounds in a way not known here.
    """
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    constants, stored = Constants(proto.graph), stored_values(proto, where)
    rounding = {n.output[0]: n for n in proto.graph.node if n.op_type == ROUNDS}
    kept, bounds = list[onnx.NodeProto](), list[onnx.TensorProto]()
    for node in proto.graph.node:
        if node.output and node.output[0] in stored:
            continue
        if node.op_type == BACK and node.input[0] in rounding:
            clip, limits = _clip(rounding[node.input[0]], node, constants, where)
            kept.append(clip)
            bounds += limits
        elif node.op_type != ROUNDS:
            kept.append(node)
    del made.graph.node[:]
    made.graph.node.extend(kept)
    _refuse_integers(made, rounding, where)
    floats = {n: v for n, v in stored.items() if n not in rounding}
    made.graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in floats.items())
    made.graph.initializer.extend(bounds)
    _drop_unread(made.graph)
    return made


def stored_values(proto: onnx.ModelProto, where: str = "the model") -> dict[str, np.ndarray]:
    """What QuantizeLinear and DequantizeLinear make of stored tensors, by name.

    Raises:
        ModelError: a way of rounding that is not known here.
    """
    constants, found = Constants(proto.graph), dict[str, np.ndarray]()
    for node in proto.graph.node:
        if node.op_type not in (ROUNDS, BACK):
            continue
        tensor, values = constants.find(node.input[0]), found.get(node.input[0])
        if tensor is not None:
            values = onnx.numpy_helper.to_array(tensor)
        if values is not None:
            found[node.output[0]] = _computed(node, values, constants, where)
    return found


def _computed(
    node: onnx.NodeProto, values: np.ndarray, constants: Constants, where: str
) -> np.ndarray:
    scale, zero = _parameters(node, constants, where)
    if scale.ndim:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        shape = [1] * values.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    if node.op_type == BACK:
        return np.asarray((values.astype(np.int64) - zero.astype(np.int64)) * scale, scale.dtype)
    limits = np.iinfo(zero.dtype)
    rounded = np.rint(values / scale).astype(np.int64) + zero.astype(np.int64)
    return np.asarray(np.clip(rounded, limits.min, limits.max), zero.dtype)


def _parameters(
    node: onnx.NodeProto, constants: Constants, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point, as one number each or one for every channel."""
    name = node.name or f"{node.op_type}:{node.output[0]}"
    names = [given for given in node.input[1:] if given]
    tensors = [t for t in map(constants.find, names) if t is not None]
    is_in_blocks = any(a.name == "block_size" and a.i for a in node.attribute)
    if len(tensors) < len(names) or is_in_blocks:
        raise ModelError(
            f"{where}: {name} has scales that are computed, or of blocks; give a model with "
            "stored scales, one for a tensor or one for every channel"
        )
    scale, *rest = (onnx.numpy_helper.to_array(t) for t in tensors)
    zero = rest[0] if rest else np.zeros(scale.shape, np.uint8)
    if zero.dtype.kind not in "iu":
        raise ModelError(f"{where}: {name} rounds to {zero.dtype}; give a model in integers")
    return (scale, zero) if scale.size > 1 else (scale.reshape(()), zero.reshape(()))


def _clip(
    rounds: onnx.NodeProto, back: onnx.NodeProto, constants: Constants, where: str
) -> tuple[onnx.NodeProto, list[onnx.TensorProto]]:
    """What is left of a pair around an activation: the range that its integers have."""
    scale, zero = _parameters(rounds, constants, where)
    name = back.output[0]
    if scale.ndim:
        raise ModelError(
            f"{where}: the activation {name!r} has scales by channel; give a model with one "
            "scale for every activation"
        )
    limits = np.iinfo(zero.dtype)
    bounds = [
        onnx.numpy_helper.from_array(np.asarray((end - int(zero)) * scale, scale.dtype), text)
        for text, end in ((f"{name}/least", limits.min), (f"{name}/most", limits.max))
    ]
    inputs = [rounds.input[0], *(t.name for t in bounds)]
    return onnx.helper.make_node("Clip", inputs, [name], f"{name}/range"), bounds


def _refuse_integers(
    made: onnx.ModelProto, rounding: Mapping[str, onnx.NodeProto], where: str
) -> None:
    """Raises ModelError for what is left, in subgraphs and functions too."""
    for node in sorted(all_nodes(made), key=lambda n: n.op_type == BACK):  # others say more
        if is_integer(node) or set(rounding) & set(node.input):
            raise ModelError(
                f"{where}: {node.op_type} {node.name or node.output[0]!r} computes in integers; "
                "give a model whose integers are between QuantizeLinear and DequantizeLinear alone"
            )


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Remove the integers and scales, and what was told of tensors that are no more."""
    read, fed = read_names(graph), {i.name for i in graph.input}
    for place in [i for i, t in enumerate(graph.initializer) if t.name not in read | fed][::-1]:
        del graph.initializer[place]
    written = {name for node in graph.node for name in node.output}
    for place in [i for i, v in enumerate(graph.value_info) if v.name not in written][::-1]:
        del graph.value_info[place]
