"""A chain of stages as ONNX: nodes to put into a graph, or a small model of its own."""

from dataclasses import dataclass

import numpy as np
import onnx

from onnxcp.chain import Chain, Stage
from onnxcp.graph.chain_names import node_name


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """A chain ready to be spliced in: nodes in order, and the tensors they read."""

    nodes: tuple[onnx.NodeProto, ...]
    initializers: tuple[onnx.TensorProto, ...]


def chain_nodes(
    chain: Chain, site: str, source: str, target: str, dtype: np.dtype, op: str = "Conv"
) -> Nodes:
    """Nodes of a site from tensor `source` to tensor `target`, in `dtype`, that take the place of
    one of type `op`: Conv, or for stages without a window MatMul or Gemm."""
    made, reading = list[Nodes](), source
    for position, stage in enumerate(chain):
        name = node_name(site, stage.role)
        last = position == len(chain) - 1
        writing = target if last else f"{name}_out"
        # a Gemm without its third input is valid from opset 11 only: a MatMul is in all
        kind = "MatMul" if op == "Gemm" and not last else op
        made.append(_MAKERS[kind](stage, name, reading, writing, dtype))
        reading = writing
    return Nodes(
        tuple(node for part in made for node in part.nodes),
        tuple(tensor for part in made for tensor in part.initializers),
    )


def _convolution(stage: Stage, name: str, reading: str, writing: str, dtype: np.dtype) -> Nodes:
    stored = _stored(name, dtype, stage.weight, stage.bias)
    node = onnx.helper.make_node(
        "Conv",
        [reading, *(tensor.name for tensor in stored)],
        [writing],
        name,
        dilations=stage.geometry.dilations,
        group=stage.group,
        kernel_shape=stage.weight.shape[2:],
        pads=stage.geometry.pads,
        strides=stage.geometry.strides,
    )
    return Nodes((node,), stored)


def _gemm(stage: Stage, name: str, reading: str, writing: str, dtype: np.dtype) -> Nodes:
    stored = _stored(name, dtype, stage.weight.T, stage.bias)
    inputs = [reading, *(tensor.name for tensor in stored)]
    return Nodes((onnx.helper.make_node("Gemm", inputs, [writing], name),), stored)


def _matmul(stage: Stage, name: str, reading: str, writing: str, dtype: np.dtype) -> Nodes:
    """A MatMul, and an Add where the stage has a bias."""
    stored = _stored(name, dtype, stage.weight.T, stage.bias)
    matrix, *bias = [tensor.name for tensor in stored]
    product = f"{name}_product" if bias else writing
    nodes = [onnx.helper.make_node("MatMul", [reading, matrix], [product], name)]
    if bias:
        nodes.append(onnx.helper.make_node("Add", [product, *bias], [writing], f"{name}/bias"))
    return Nodes(tuple(nodes), stored)


_MAKERS = {"Conv": _convolution, "Gemm": _gemm, "MatMul": _matmul}


def _stored(
    name: str, dtype: np.dtype, weight: np.ndarray, bias: np.ndarray | None
) -> tuple[onnx.TensorProto, ...]:
    """The weight as the node reads it, a matrix as [S, T], and the bias where there is one."""
    tensors = [_tensor(f"{name}.weight", weight, dtype)]
    return tuple(tensors if bias is None else [*tensors, _tensor(f"{name}.bias", bias, dtype)])


def _tensor(name: str, values: np.ndarray, dtype: np.dtype) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(values.astype(dtype), name)
