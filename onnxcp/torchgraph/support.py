"""Which nodes of a model torch can compute here, and why not the others."""

from collections import Counter
from collections.abc import Callable, Mapping

import onnx

from onnxcp.errors import UnsupportedError
from onnxcp.torchgraph.node import TYPES, Body, Node, Reader, opsets
from onnxcp.torchgraph.operators import recurrent
from onnxcp.torchgraph.operators.table import OPERATORS

OLDEST, NEWEST = 7, 28  # opsets of ONNX whose operators were read and tested
MOST_AXES = 3  # spatial ones: torch has no more
NAMED = 3  # nodes named in a message
READ = ("If",)  # computed by the network itself

Refusal = Callable[[Node], str | None]


def unsupported(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Every node and stored tensor that keeps a model out of torch, with the reason."""
    reader = Reader(opsets(proto))
    return refused(reader.body(proto.graph), reader, proto)


def refused(body: Body, reader: Reader, proto: onnx.ModelProto) -> tuple[str, ...]:
    """The same for a model that has been read."""
    nodes = ((node, _reason(node)) for node in body.all_nodes())
    fed = [i for i in proto.graph.input if i.type.tensor_type.elem_type not in TYPES]
    return (
        *(f"{node.where}: {reason}" for node, reason in nodes if reason is not None),
        *reader.strange,
        *(f"input {i.name!r} is no tensor of a type that torch computes with" for i in fed),
    )


def refuse(body: Body, reader: Reader, proto: onnx.ModelProto) -> None:
    """Raises UnsupportedError if there is anything that torch can not compute."""
    reasons = refused(body, reader, proto)
    if not reasons:
        return
    ops = Counter(n.op for n in body.all_nodes() if _reason(n) is not None)
    kinds = ", ".join(f"{count} {op}" for op, count in ops.most_common())
    more = f" and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    raise UnsupportedError(
        f"the model has what torch can not compute here: {'; '.join(reasons[:NAMED])}{more}"
        f"{f' (in all {kinds})' if kinds else ''}; export it with other operators, or go on "
        "without training"
    )


def _reason(node: Node) -> str | None:
    if node.op in READ:
        return None
    if node.op not in OPERATORS:
        return "an operator that is not covered"
    if node.domain == "" and not OLDEST <= node.opset <= NEWEST:
        return f"opset {node.opset} is outside {OLDEST} to {NEWEST}"
    return REFUSALS[node.op](node) if node.op in REFUSALS else None


def _statistics(node: Node) -> str | None:
    if node.get("training_mode", 0) or any(node.outputs[1:]):
        return "computes the statistics of its batch"
    return None if node.get("spatial", 1) else "has statistics per position"


def _positions(node: Node) -> str | None:
    return "gives positions too" if any(node.outputs[1:]) else _axes(node)


def _axes(node: Node) -> str | None:
    """Without a kernel's shape among the attributes it shows when the node runs."""
    axes = len(node.get("kernel_shape", None) or [])
    return f"slides over {axes} axes; {MOST_AXES} at most" if axes > MOST_AXES else None


def _type(node: Node) -> str | None:
    to = node.get("to", 0)
    if to in TYPES:
        return None
    return f"casts to {_name(to)}, which torch does not compute with"


def _steps(node: Node) -> str | None:
    if node.get("precision", 0):
        return "divides in a type of its own"
    asked = node.get("output_dtype", 0)
    return f"gives {_name(asked)}, which torch lacks" if asked and asked not in TYPES else None


def _name(kind: int) -> str:
    return str(onnx.TensorProto.DataType.Name(kind))


def _value(node: Node) -> str | None:
    return None if node.get("value", 0) is not None else "of a type torch does not compute with"


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
