"""Stored inputs of nodes, read and written in place; a written tensor belongs to one node."""

import numpy as np
import onnx

from onnxcp.graph.index import read_counts


class Parameters:
    """Initializers of a graph, by the nodes that read them."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._stored = {t.name: t for t in graph.initializer}
        self._read = read_counts(graph)

    def find(self, node: onnx.NodeProto, place: int) -> np.ndarray | None:
        """The values of a node's input; None if it is missing or computed."""
        name = node.input[place] if place < len(node.input) else ""
        if name not in self._stored:
            return None
        values: np.ndarray = onnx.numpy_helper.to_array(self._stored[name])
        return values

    def write(self, node: onnx.NodeProto, place: int, values: np.ndarray) -> None:
        """Give a node other values in float32, and a tensor of its own where it shared one or
        had none; optional inputs before it must be there."""
        if place == len(node.input):
            node.input.append("")
        name = node.input[place]
        if name not in self._stored or self._read[name] > 1:
            self._read[name] -= 1
            name = node.input[place] = self._fresh(f"{node.name}.{place}")
            self._stored[name] = self._graph.initializer.add()
        tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name)
        self._stored[name].CopyFrom(tensor)

    def _fresh(self, name: str) -> str:
        while name in self._read or name in self._stored:
            name += "_"
        self._read[name] = 1
        return name
