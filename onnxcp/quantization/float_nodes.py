"""Float nodes between int8 ones, shielded from a runtime that rounds them by itself.

ONNX Runtime from 1.21 on gives a Conv, ConvTranspose or Gemm between DequantizeLinear and
QuantizeLinear, also with ReLU or Clip before the latter, an int8 weight of its own where it has
one in float, with one scale for all channels (`WeightBiasQuantization`, microsoft/onnxruntime
pull request 22969): less accurate than in int8 by channel, and no faster. A LeakyRelu of slope
1 behind the node changes no number and is computed inside a float Conv, but ends that; not in
1.21 itself, which does not look at what follows.
"""

from collections.abc import Iterable

import onnx

from onnxcp.graph.operators import operator

ROUNDED = ("Conv", "ConvTranspose", "Gemm")
SEEN_THROUGH = ("Relu", "Clip")


def shield(made: onnx.ModelProto) -> None:
    """Keep in float, in the model given, what is stored in float and read between int8."""
    graph = made.graph
    stored = {t.name for t in graph.initializer}
    restored = {n.output[0] for n in graph.node if operator(n) == "DequantizeLinear"}
    rounded = _rounded(graph.node)
    for place, node in reversed(list(enumerate(graph.node))):
        is_inside = operator(node) in ROUNDED and node.input[0] in restored
        if is_inside and node.input[1] in stored and node.output[0] in rounded:
            name, node.output[0] = node.output[0], f"{node.output[0]}/float"
            same = onnx.helper.make_node(
                "LeakyRelu", [node.output[0]], [name], f"{node.name}/float", alpha=1.0
            )
            graph.node.insert(place + 1, same)


def _rounded(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Tensors that QuantizeLinear reads, or would but for ReLU and Clip."""
    found = set[str]()
    for node in reversed(list(nodes)):  # in an order in which they can run
        is_through = operator(node) in SEEN_THROUGH and node.output[0] in found
        if operator(node) == "QuantizeLinear" or is_through:
            found.add(node.input[0])
    return found
