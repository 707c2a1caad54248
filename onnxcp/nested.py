"""Convolutions outside a model's main graph: in If and Loop bodies and in local functions."""

from collections.abc import Iterator

import onnx

CONVOLUTIONS = ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv", "NhwcConv")


def nested(proto: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, str]]:
    """Convolutions that are not in the main graph, with where they are."""
    for node in proto.graph.node:
        yield from _within(node, f"{node.op_type} {node.name!r}")
    for function in proto.functions:
        for node in function.node:
            if node.op_type in CONVOLUTIONS:
                yield node, f"the local function {function.name!r}"
            yield from _within(node, f"the local function {function.name!r}")


def _within(node: onnx.NodeProto, where: str) -> Iterator[tuple[onnx.NodeProto, str]]:
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                if inner.op_type in CONVOLUTIONS:
                    yield inner, where
                yield from _within(inner, where)
