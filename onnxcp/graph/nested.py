"""Convolutions outside a model's main graph: in If and Loop bodies and in local functions."""

from collections.abc import Iterator

import onnx

from onnxcp.graph.operators import operator

CONVOLUTIONS = ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv", "NhwcConv")


def is_convolution(node: onnx.NodeProto) -> bool:
    """Whether a node is called a convolution, in whatever domain: such nodes are listed."""
    return operator(node).rpartition(".")[2] in CONVOLUTIONS


def graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph and the bodies of its nodes, at any depth."""
    waiting = [proto.graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        bodies = (a for node in graph.node for a in node.attribute)
        waiting += [g for a in bodies for g in (*([a.g] if a.HasField("g") else []), *a.graphs)]


def nested(proto: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, str]]:
    """Convolutions that are not in the main graph, with where they are."""
    for node in proto.graph.node:
        yield from _within(node, f"{operator(node)} {node.name!r}")
    for function in proto.functions:
        for node in function.node:
            if is_convolution(node):
                yield node, f"the local function {function.name!r}"
            yield from _within(node, f"the local function {function.name!r}")


def _within(node: onnx.NodeProto, where: str) -> Iterator[tuple[onnx.NodeProto, str]]:
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                if is_convolution(inner):
                    yield inner, where
                yield from _within(inner, where)
