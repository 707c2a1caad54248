"""Outputs of functions that saturate, such as Sigmoid, where only rounding is left."""

import onnx

from onnxcp.graph.index import makers
from onnxcp.graph.operators import operator

SATURATING = {"Sigmoid", "HardSigmoid", "Softmax", "Tanh", "Erf"}
MOVING = {"Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice"}


def bounded(graph: onnx.GraphProto) -> frozenset[str]:
    """Names of the graph's outputs that are results of a function with values in [−1, 1].

    Runtimes compute these to about the rounding of 1: ONNX Runtime's Sigmoid on CPUs returns 0 or
    6e-8 for 1e-8. An error relative to less than 1 is meaningless for them.
    """
    made = makers(graph.node)
    return frozenset(o.name for o in graph.output if _saturates(made, o.name))


def _saturates(makers: dict[str, onnx.NodeProto], name: str) -> bool:
    node = makers.get(name)
    while node is not None and operator(node) in MOVING:
        node = makers.get(node.input[0])
    return node is not None and operator(node) in SATURATING
