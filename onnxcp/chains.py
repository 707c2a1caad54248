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


def chain_nodes(
    chain: Chain, prefix: str, source: str, target: str, dtype: np.dtype, op: str = "Conv"
) -> Nodes:
    """Nodes `<prefix>/<role>` from tensor `source` to tensor `target`, in `dtype`, that take
    the place of one of type `op`: Conv, or for stages without a window MatMul or Gemm."""
    reading = gs.Variable(source, dtype=dtype)
    nodes: list[gs.Node] = []
    for position, stage in enumerate(chain):
        name = f"{prefix}/{stage.role}"
        last = position == len(chain) - 1
        writing = gs.Variable(target if last else f"{name}_out", dtype=dtype)
        # a Gemm without its third input is valid from opset 11 only: a MatMul is in all
        kind = "MatMul" if op == "Gemm" and not last else op
        nodes += _MAKERS[kind](stage, name, reading, writing, dtype)
        reading = writing
    graph = gs.Graph(nodes, inputs=[nodes[0].inputs[0]], outputs=[reading])
    exported = gs.export_onnx(graph, do_type_check=False).graph
    return Nodes(tuple(exported.node), tuple(exported.initializer))


def _convolution(
    stage: Stage, name: str, reading: gs.Variable, writing: gs.Variable, dtype: np.dtype
) -> list[gs.Node]:
    inputs = [reading, _constant(f"{name}.weight", stage.weight, dtype), *_bias(stage, name, dtype)]
    geometry = stage.geometry
    attributes = {
        "dilations": list(geometry.dilations),
        "group": stage.group,
        "kernel_shape": list(stage.weight.shape[2:]),
        "pads": list(geometry.pads),
        "strides": list(geometry.strides),
    }
    return [gs.Node("Conv", name=name, attrs=attributes, inputs=inputs, outputs=[writing])]


def _gemm(
    stage: Stage, name: str, reading: gs.Variable, writing: gs.Variable, dtype: np.dtype
) -> list[gs.Node]:
    inputs = [reading, _matrix(stage, name, dtype), *_bias(stage, name, dtype)]
    return [gs.Node("Gemm", name=name, inputs=inputs, outputs=[writing])]


def _matmul(
    stage: Stage, name: str, reading: gs.Variable, writing: gs.Variable, dtype: np.dtype
) -> list[gs.Node]:
    """A MatMul, and an Add where the stage has a bias."""
    inputs, bias = [reading, _matrix(stage, name, dtype)], _bias(stage, name, dtype)
    if not bias:
        return [gs.Node("MatMul", name=name, inputs=inputs, outputs=[writing])]
    product = gs.Variable(f"{name}_product", dtype=dtype)
    return [
        gs.Node("MatMul", name=name, inputs=inputs, outputs=[product]),
        gs.Node("Add", name=f"{name}/bias", inputs=[product, *bias], outputs=[writing]),
    ]


_MAKERS = {"Conv": _convolution, "Gemm": _gemm, "MatMul": _matmul}


def _matrix(stage: Stage, name: str, dtype: np.dtype) -> gs.Constant:
    """The stage's matrix as [S, T], the way a product multiplies by it."""
    return _constant(f"{name}.weight", stage.weight.T, dtype)


def _bias(stage: Stage, name: str, dtype: np.dtype) -> list[gs.Constant]:
    return [] if stage.bias is None else [_constant(f"{name}.bias", stage.bias, dtype)]


def _constant(name: str, values: np.ndarray, dtype: np.dtype) -> gs.Constant:
    return gs.Constant(name, np.ascontiguousarray(values.astype(dtype)))


def chain_model(chain: Chain, shape: Sequence[int], dtype: np.dtype, op: str = "Conv") -> bytes:
    """A serialized model that runs one chain in place of an `op` on an input `x` of the given
    shape: N×S×H×W for a convolution of images."""
    made = chain_nodes(chain, "chain", "x", "y", dtype, op)
    kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    image = onnx.helper.make_tensor_value_info("x", kind, list(shape))
    result = onnx.helper.make_tensor_value_info("y", kind, [None] * len(shape))
    graph = onnx.helper.make_graph(made.nodes, "chain", [image], [result], made.initializers)
    opset = onnx.helper.make_opsetid("", 13)
    serialized: bytes = onnx.helper.make_model(
        graph, ir_version=8, opset_imports=[opset]
    ).SerializeToString()
    return serialized
