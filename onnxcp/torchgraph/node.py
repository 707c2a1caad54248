"""Nodes read from ONNX: attributes as Python values, stored tensors as torch tensors.

A graph and each body inside it (of an If) becomes a `Body`. Its stored tensors, initializers and
values of Constant nodes, are collected under keys that are unique in the model and valid as names
in a torch module.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from onnxcp.graph.operators import domain_of, normalized, operator

TYPES: dict[int, torch.dtype] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.BOOL: torch.bool,
}  # torch has almost no operators for the others
CONSTANTS = {  # a Constant node's attributes besides `value`
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operation; an omitted input has the name ""."""

    op: str  # as `operators.operator` names it
    domain: str  # "" is ONNX's own
    opset: int  # of its domain
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    bodies: Mapping[str, "Body"]

    def get(self, key: str, default: Any) -> Any:
        """An attribute: int, float, str, list or tensor."""
        return self.attributes.get(key, default)

    @property
    def where(self) -> str:
        """The node by name, or by its first output, for messages."""
        return f"node {self.name or self.outputs[0]!r} ({self.op})"

    @property
    def reads(self) -> frozenset[str]:
        """Names that the node or its bodies read."""
        inner = (name for body in self.bodies.values() for name in body.reads)
        return frozenset((*self.inputs, *inner))


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """The nodes of one graph; `keys` names its stored tensors in the model."""

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    keys: Mapping[str, str]

    @property
    def reads(self) -> frozenset[str]:
        """Names that its nodes read, and its outputs."""
        return frozenset(name for node in self.nodes for name in node.reads) | {*self.outputs}

    def all_nodes(self) -> Iterator[Node]:
        """Its nodes and, after each one, those of the bodies inside it."""
        for node in self.nodes:
            yield node
            for body in node.bodies.values():
                yield from body.all_nodes()


@dataclass(slots=True)
class Reader:
    """Reads bodies, and collects their stored tensors by key."""

    opsets: Mapping[str, int]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    unsupported: list[str] = field(default_factory=list)  # stored tensors torch lacks a type for

    def body(self, graph: onnx.GraphProto) -> Body:
        """A graph's nodes; its stored tensors are added to `tensors` or `unsupported`."""
        constants = {n.output[0]: constant(n) for n in graph.node if operator(n) == "Constant"}
        stored = {t.name: t for t in graph.initializer} | constants
        keys = {name: self._keep(name, tensor) for name, tensor in stored.items()}
        self.unsupported += [
            f"tensor {t.values.name!r} is sparse" for t in graph.sparse_initializer
        ]
        nodes = tuple(self._node(n) for n in graph.node if operator(n) != "Constant")
        return Body(nodes, tuple(o.name for o in graph.output), keys)

    def _keep(self, name: str, tensor: onnx.TensorProto | None) -> str:
        if tensor is None or tensor.data_type not in TYPES:
            self.unsupported.append(f"tensor {name!r} has a type that PyTorch cannot compute with")
            return ""
        key = f"tensor_{len(self.tensors)}"
        self.tensors[key] = read_tensor(tensor)
        return key

    def _node(self, proto: onnx.NodeProto) -> Node:
        domain = domain_of(proto)
        graphs = {a.name: a.g for a in proto.attribute if a.type == onnx.AttributeProto.GRAPH}
        values = {a.name: _value(a) for a in proto.attribute if a.name not in graphs}
        return Node(
            op=operator(proto),
            domain=domain,
            opset=self.opsets.get(domain, 1),
            name=proto.name,
            inputs=tuple(proto.input),
            outputs=tuple(proto.output),
            attributes=values,
            bodies={name: self.body(graph) for name, graph in graphs.items()},
        )


def opsets(proto: onnx.ModelProto) -> dict[str, int]:
    """The version of each operator set by domain; "" is ONNX's own."""
    return {normalized(o.domain): o.version for o in proto.opset_import}


def constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The value of a Constant node; None for text or a sparse tensor."""
    attribute = node.attribute[0]
    if attribute.name == "value":
        tensor: onnx.TensorProto = attribute.t
        return tensor
    if attribute.name not in CONSTANTS:
        return None
    dtype = CONSTANTS[attribute.name]
    value = onnx.helper.get_attribute_value(attribute)
    return onnx.numpy_helper.from_array(np.asarray(value, dtype))


def read_tensor(proto: onnx.TensorProto) -> Tensor:
    """A stored tensor as a torch tensor with its own memory."""
    array = onnx.numpy_helper.to_array(proto)
    if proto.data_type == onnx.TensorProto.BFLOAT16:  # torch cannot read it from numpy
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array, order="C"))


def _value(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.type == onnx.AttributeProto.TENSOR:
        return read_tensor(value) if value.data_type in TYPES else None
    if attribute.type == onnx.AttributeProto.STRING:
        return value.decode()
    return list(value) if attribute.type == onnx.AttributeProto.INTS else value
