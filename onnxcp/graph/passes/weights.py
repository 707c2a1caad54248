"""Weights that are listed among the graph's inputs, so that a caller could replace them.

Up to IR 3 every weight had to be. ONNX Runtime takes what a caller may replace for no constant:
convolutions keep their plain layout, and normalizations behind them are not folded.
"""

from onnxcp.graph.passes.edit import Edit, Pass
from onnxcp.graph.splice import LISTED_INITIALIZERS


def unlist_weights(edit: Edit) -> int:
    """Take stored tensors out of the graph's inputs, in IR 4 or later; how many."""
    graph = edit.proto.graph
    stored = {tensor.name for tensor in graph.initializer}
    places = [place for place, value in enumerate(graph.input) if value.name in stored]
    for place in reversed(places):
        del graph.input[place]
    if places:
        edit.proto.ir_version = max(edit.proto.ir_version, LISTED_INITIALIZERS + 1)
    return len(places)


UNLIST = Pass("weights are no inputs of the graph any more", unlist_weights)
