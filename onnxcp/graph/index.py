"""Who makes and who reads a tensor: looked up by name, in a graph as it is now.

Names that nodes leave empty, as optional inputs and outputs, are no tensors.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

import onnx


def makers(nodes: Iterable[onnx.NodeProto]) -> dict[str, onnx.NodeProto]:
    """The node that makes a tensor."""
    return {name: node for node in nodes for name in node.output if name}


def places(nodes: Iterable[onnx.NodeProto]) -> dict[str, int]:
    """The position of the node that makes a tensor."""
    return {name: at for at, node in enumerate(nodes) for name in node.output if name}


def made_names(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Names of the tensors that nodes make."""
    return {name for node in nodes for name in node.output if name}


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node runs."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def reads(node: onnx.NodeProto) -> list[str]:
    """Names that a node reads, those that its bodies read included."""
    return [name for name in (*node.input, *_read_inside(node)) if name]


def _read_inside(node: onnx.NodeProto) -> Iterator[str]:
    for body in bodies(node):
        for inner in body.node:
            yield from reads(inner)
        yield from (output.name for output in body.output)


def read_names(graph: onnx.GraphProto) -> set[str]:
    """Names that nodes read, those of subgraphs included, and the graph's outputs."""
    outputs = {output.name for output in graph.output}
    return outputs.union(*map(reads, graph.node))


def read_counts(graph: onnx.GraphProto) -> Counter[str]:
    """How many nodes of a graph, subgraphs included, and outputs read every name."""
    counts = Counter(output.name for output in graph.output)
    for node in graph.node:
        counts.update(set(reads(node)))
    return counts
