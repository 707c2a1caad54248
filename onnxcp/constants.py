"""Stored tensors of a graph, wherever they are stored."""

import onnx

from onnxcp.operators import operator


class Constants:
    """Stored tensors of a graph by the name a node reads: also Constant nodes, Identity."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.stored = {t.name: t for t in graph.initializer}
        self.makers = {output: n for n in graph.node for output in n.output}

    def find(self, name: str) -> onnx.TensorProto | None:
        """The tensor behind a name, or None if it is computed or fed."""
        while name not in self.stored:
            maker = self.makers.get(name)
            if maker is None or operator(maker) not in ("Identity", "Constant"):
                return None
            if operator(maker) == "Constant":
                return _value(maker)
            name = maker.input[0]
        tensor: onnx.TensorProto = self.stored[name]
        return tensor

    def origin(self, name: str) -> str:
        """What makes a tensor, in words."""
        maker = self.makers.get(name)
        return f"by {operator(maker)}" if maker is not None else "an input of the graph"


def _value(constant: onnx.NodeProto) -> onnx.TensorProto | None:
    for attribute in constant.attribute:
        if attribute.name == "value":
            tensor: onnx.TensorProto = attribute.t
            return tensor
    return None
