"""Which nodes of a model PyTorch can compute, with the reasons for the others."""

from collections import Counter
from collections.abc import Callable, Mapping

import onnx

from onnxcp.errors import UnsupportedError
from onnxcp.torchgraph.node import TYPES, Body, Node, Reader, opsets
from onnxcp.torchgraph.operators import recurrent
from onnxcp.torchgraph.operators.table import OPERATORS

MIN_OPSET, MAX_OPSET = 7, 28  # of ONNX, whose operators are covered and tested
MAX_AXES = 3  # spatial axes in torch
SHOWN_REASONS = 3  # in a message
CONTROL_FLOW = ("If",)  # computed by the network itself

Refusal = Callable[[Node], str | None]


def unsupported(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Reasons why PyTorch cannot compute a model: one per node, stored tensor or input."""
    reader = Reader(opsets(proto))
    return refused(reader.body(proto.graph), reader, proto)


def refused(body: Body, reader: Reader, proto: onnx.ModelProto) -> tuple[str, ...]:
    """The same for a model that has been read already."""
    nodes = ((node, _reason(node)) for node in body.all_nodes())
    inputs = [i for i in proto.graph.input if i.type.tensor_type.elem_type not in TYPES]
    return (
        *(f"{node.where}: {reason}" for node, reason in nodes if reason is not None),
        *reader.unsupported,
        *(f"input {i.name!r} has a type that PyTorch cannot compute with" for i in inputs),
    )


def refuse(body: Body, reader: Reader, proto: onnx.ModelProto) -> None:
    """Raises UnsupportedError, with the reasons, if PyTorch cannot compute a model."""
    reasons = refused(body, reader, proto)
    if not reasons:
        return
    ops = Counter(n.op for n in body.all_nodes() if _reason(n) is not None)
    kinds = ", ".join(f"{count} {op}" for op, count in ops.most_common())
    more = f" and {len(reasons) - SHOWN_REASONS} more" if len(reasons) > SHOWN_REASONS else ""
    raise UnsupportedError(
        f"PyTorch cannot compute this model: {'; '.join(reasons[:SHOWN_REASONS])}{more}"
        f"{f' (in all {kinds})' if kinds else ''}; export it with other operators, or continue "
        "without training"
    )


def _reason(node: Node) -> str | None:
    if node.op in CONTROL_FLOW:
        return None
    if node.op not in OPERATORS:
        return "an operator that is not covered"
    if node.domain == "" and not MIN_OPSET <= node.opset <= MAX_OPSET:
        return f"opset {node.opset} is outside {MIN_OPSET} to {MAX_OPSET}"
    return REFUSALS[node.op](node) if node.op in REFUSALS else None


def _statistics(node: Node) -> str | None:
    if node.get("training_mode", 0) or any(node.outputs[1:]):
        return "computes the statistics of its batch"
    return None if node.get("spatial", 1) else "has statistics per position"


def _positions(node: Node) -> str | None:
    return "also outputs positions" if any(node.outputs[1:]) else _axes(node)


def _axes(node: Node) -> str | None:
    """If the kernel's shape is not an attribute, too many axes fail when the node runs."""
    axes = len(node.get("kernel_shape", None) or [])
    return f"slides over {axes} axes; at most {MAX_AXES} are covered" if axes > MAX_AXES else None


def _type(node: Node) -> str | None:
    to = node.get("to", 0)
    if to in TYPES:
        return None
    return f"casts to {_name(to)}, which PyTorch cannot compute with"


def _steps(node: Node) -> str | None:
    if node.get("precision", 0):
        return "divides in a type that it states"
    dtype = node.get("output_dtype", 0)
    is_missing = dtype and dtype not in TYPES
    return f"outputs {_name(dtype)}, which PyTorch lacks" if is_missing else None


def _name(kind: int) -> str:
    return str(onnx.TensorProto.DataType.Name(kind))


def _value(node: Node) -> str | None:
    return None if node.get("value", 0) is not None else "has a type PyTorch cannot compute with"


REFUSALS: Mapping[str, Refusal] = {
    "AveragePool": _axes,
    "BatchNormalization": _statistics,
    "Cast": _type,
    "ConstantOfShape": _value,
    "Conv": _axes,
    "ConvTranspose": _axes,
    "DequantizeLinear": _steps,
    "LSTM": recurrent.refusal,
    "LpPool": _axes,
    "MaxPool": _positions,
    "QuantizeLinear": _steps,
}
