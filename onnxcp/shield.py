"""Float nodes between int8 ones, shielded from a runtime that rounds them by itself.

ONNX Runtime from 1.21 on gives a Conv, ConvTranspose or Gemm between DequantizeLinear and
QuantizeLinear an int8 weight of its own where it has one in float, with one scale for all
channels (its `WeightBiasQuantization`, microsoft/onnxruntime pull request 22969): less accurate
than in int8 by channel, and no faster. A LeakyRelu of slope 1 between the node and
QuantizeLinear changes no number and is computed inside a float Conv, but ends that.
"""

import onnx

ROUNDED = ("Conv", "ConvTranspose", "Gemm")


def shield(made: onnx.ModelProto) -> None:
    """Keep in float, in the model given, what is stored in float and read between int8."""
    graph = made.graph
    stored = {t.name for t in graph.initializer}
    restored = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    rounded = {n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    for place, node in reversed(list(enumerate(graph.node))):
        if (
            node.op_type in ROUNDED
            and node.input[0] in restored
            and node.input[1] in stored
            and node.output[0] in rounded
        ):
            name = node.output[0]
            node.output[0] = f"{name}/float"
            same = onnx.helper.make_node(
                "LeakyRelu", [node.output[0]], [name], f"{node.name}/float", alpha=1.0
            )
            graph.node.insert(place + 1, same)
