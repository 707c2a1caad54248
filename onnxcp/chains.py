"""A chain of stages as ONNX: nodes to put into a graph, or a small model of its own.

onnx-graphsurgeon builds and orders the nodes. Only this new part of a graph passes
through it: what a model already holds is never re-exported, because an export drops
metadata and doc strings (seen in 0.6.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxcp.conv import Chain, Stage


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """A chain ready to be spliced in: nodes in order, and the tensors they read."""

    nodes: tuple[onnx.NodeProto, ...]
    initializers: tuple[onnx.TensorProto, ...]


def chain_nodes(chain: Chain, prefix: str, source: str, target: str, dtype: np.dtype) -> Nodes:
    """Conv nodes `<prefix>/<role>` from tensor `source` to tensor `target`, in `dtype`."""
    reading = gs.Variable(source, dtype=dtype)
    nodes = []
    for position, stage in enumerate(chain):
        name = f"{prefix}/{stage.role}"
        last = position == len(chain) - 1
        writing = gs.Variable(target if last else f"{name}_out", dtype=dtype)
        nodes.append(_node(stage, name, reading, writing, dtype))
        reading = writing
    graph = gs.Graph(nodes, inputs=[nodes[0].inputs[0]], outputs=[reading])
    exported = gs.export_onnx(graph, do_type_check=False).graph
    return Nodes(tuple(exported.node), tuple(exported.initializer))


def _node(
    stage: Stage, name: str, reading: gs.Variable, writing: gs.Variable, dtype: np.dtype
) -> gs.Node:
    inputs = [reading, _constant(f"{name}.weight", stage.weight, dtype)]
    if stage.bias is not None:
        inputs.append(_constant(f"{name}.bias", stage.bias, dtype))
    geometry = stage.geometry
    attributes = {
        "dilations": list(geometry.dilations),
        "group": stage.group,
        "kernel_shape": list(stage.weight.shape[2:]),
        "pads": list(geometry.pads),
        "strides": list(geometry.strides),
    }
    return gs.Node("Conv", name=name, attrs=attributes, inputs=inputs, outputs=[writing])


def _constant(name: str, values: np.ndarray, dtype: np.dtype) -> gs.Constant:
    return gs.Constant(name, np.ascontiguousarray(values.astype(dtype)))


def chain_model(chain: Chain, shape: Sequence[int], dtype: np.dtype) -> bytes:
    """A serialized model that runs one chain on an input `x` of the given N×S×H×W shape."""
    made = chain_nodes(chain, "chain", "x", "y", dtype)
    kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    image = onnx.helper.make_tensor_value_info("x", kind, list(shape))
    result = onnx.helper.make_tensor_value_info("y", kind, [None] * 4)
    graph = onnx.helper.make_graph(made.nodes, "chain", [image], [result], made.initializers)
    opset = onnx.helper.make_opsetid("", 13)
    serialized: bytes = onnx.helper.make_model(
        graph, ir_version=8, opset_imports=[opset]
    ).SerializeToString()
    return serialized
