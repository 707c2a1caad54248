"""Stored tensors of a graph, and tensors that are computed only from stored ones.

A weight can be the result of nodes that only read stored tensors: a Cast, a Transpose, the product
of a weight normalization. Such nodes are folded: computed once, node by node, with ONNX's reference
implementation.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx

from onnxcp.graph.index import makers
from onnxcp.graph.operators import DEQUANTIZE, QUANTIZE, normalized, operator

LARGEST = 2**28  # numbers in a folded tensor
SMALL = 1 << 10  # numbers of a tensor that may be a shape: shape inference reads its values
PURE = (  # operators that give the same whenever they are computed
    "Abs Add Cast CastLike Ceil Concat Constant ConstantOfShape Div Exp Expand Flatten Floor "
    "Gather Gemm Identity Log MatMul Max Mean Min Mul Neg Pad Pow Range Reciprocal ReduceL1 "
    "ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Reshape Shape "
    "Sigmoid Sign Size Slice Softplus Split Sqrt Squeeze Sub Sum Tanh Tile Transpose Unsqueeze "
    "Where"
)
FOLDED = frozenset(PURE.split())
ATTRIBUTES = {  # of a Constant, beside `value` and `sparse_value`
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


class Constants:
    """Stored tensors of a graph by the name a node reads, those behind constant-only nodes
    included; without `opset` only those behind Constant and Identity."""

    def __init__(self, graph: onnx.GraphProto, opset: int | None = None) -> None:
        self.stored = {t.name: t for t in graph.initializer}
        self.makers = makers(graph.node)
        self._sparse = {t.values.name: t for t in graph.sparse_initializer}
        self._opset = opset
        self._values: dict[str, onnx.TensorProto | None] = {}
        self.names = frozenset(_constant(graph, (*self.stored, *self._sparse)))

    @classmethod
    def of(cls, proto: onnx.ModelProto) -> "Constants":
        """Those of a model's main graph."""
        versions = {normalized(o.domain): o.version for o in proto.opset_import}
        return cls(proto.graph, versions.get(""))

    def find(self, name: str) -> onnx.TensorProto | None:
        """The value of a stored or folded tensor; None if it is computed from inputs or fed."""
        if name not in self.names:
            return None
        if name not in self._values:
            for wanted in self._upstream(name):
                if wanted not in self._values:
                    self._values.update(self._made(wanted))
        return self._values.get(name)

    def sources(self, name: str) -> set[str]:
        """Names of the stored tensors that a constant is computed from."""
        return {n for n in self._upstream(name) if n in self.stored or n in self._sparse}

    def origin(self, name: str) -> str:
        """How a tensor is computed or stored, in words."""
        maker = self.makers.get(name)
        return f"by {operator(maker)}" if maker is not None else "an input of the graph"

    def is_quantized(self, name: str) -> bool:
        """Whether a tensor is the result of a DequantizeLinear of stored integers."""
        return any(self._restores(n) for n in self._through(name))

    def _restores(self, name: str) -> bool:
        maker = self.makers.get(name)
        if maker is None or operator(maker) not in DEQUANTIZE or not maker.input:
            return False
        before = self.makers.get(maker.input[0])
        rounds = before is not None and operator(before) in QUANTIZE and len(before.input) > 0
        source = before.input[0] if before is not None and rounds else maker.input[0]
        return source in self.names

    def _through(self, name: str) -> Iterable[str]:
        """A name, and those that it is made of by nodes that are folded."""
        waiting, seen = [name], {name}
        while waiting:
            reading = waiting.pop()
            yield reading
            maker = self.makers.get(reading)
            if maker is not None and operator(maker) in FOLDED:
                waiting += (more := {*maker.input} - seen - {""})
                seen |= more

    def _upstream(self, name: str) -> list[str]:
        """All that a constant is made of, each behind what it is made of itself."""
        order, waiting = dict[str, None](), [name]
        while waiting:
            reading = waiting[-1]
            maker = self.makers.get(reading) if reading not in self.stored else None
            missing = [n for n in maker.input if n and n not in order] if maker is not None else []
            if reading in order or not missing:
                order.setdefault(reading)
                waiting.pop()
            else:
                waiting += missing
        return list(order)

    def _made(self, name: str) -> dict[str, onnx.TensorProto | None]:
        """A tensor, with the others that its node makes; those before it are known."""
        if name in self.stored:
            return {name: self.stored[name]}
        if name in self._sparse:
            return {name: _dense(self._sparse[name])}
        node = self.makers[name]
        if operator(node) == "Constant":
            return {name: _value(node)}
        read = {n: self._values.get(n) for n in node.input if n}
        if operator(node) == "Identity":
            return {name: read[node.input[0]]}
        known = {n: t for n, t in read.items() if t is not None}
        if self._opset is None or len(known) < len(read):
            return dict.fromkeys(node.output)
        return dict(zip(node.output, _computed(node, known, self._opset), strict=True))


def is_folded(node: onnx.NodeProto) -> bool:
    """Whether a node is folded if all its inputs are stored."""
    return operator(node) in FOLDED


def _constant(graph: onnx.GraphProto, stored: Iterable[str]) -> set[str]:
    """Names of what is stored, or made by nodes that are folded of nothing else."""
    names = set(stored)
    for node in graph.node:
        if is_folded(node) and names.issuperset(n for n in node.input if n):
            names.update(n for n in node.output if n)
    return names


def _value(constant: onnx.NodeProto) -> onnx.TensorProto | None:
    """The value of a Constant; None for text."""
    for attribute in constant.attribute:
        if attribute.name == "value":
            tensor: onnx.TensorProto = attribute.t
            return tensor
        if attribute.name == "sparse_value":
            return _dense(attribute.sparse_tensor)
        if attribute.name in ATTRIBUTES:
            value = onnx.helper.get_attribute_value(attribute)
            return onnx.numpy_helper.from_array(np.asarray(value, ATTRIBUTES[attribute.name]))
    return None


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto | None:
    """A sparse tensor as a dense one; None if it is too large or invalid."""
    shape = tuple(sparse.dims)
    if int(np.prod(shape, dtype=object)) > LARGEST:
        return None
    try:
        values, places = (onnx.numpy_helper.to_array(t) for t in (sparse.values, sparse.indices))
        made = np.zeros(shape, values.dtype)
        flat = places if places.ndim == 1 else np.ravel_multi_index(tuple(places.T), shape)
        made.reshape(-1)[flat] = values
    except (ValueError, IndexError, TypeError):
        return None
    return onnx.numpy_helper.from_array(made, sparse.values.name)


def _computed(
    node: onnx.NodeProto, known: Mapping[str, onnx.TensorProto], opset: int
) -> list[onnx.TensorProto | None]:
    """What a node makes of stored tensors; None where that is too large, or fails."""
    model = _alone(node, known, opset)
    if not _is_bounded(model, known):
        return [None] * len(node.output)
    from onnx.reference import ReferenceEvaluator  # loads slowly, and most models need none

    try:
        fed = {name: onnx.numpy_helper.to_array(tensor) for name, tensor in known.items()}
        made = ReferenceEvaluator(model).run(None, fed)
        found = iter(onnx.numpy_helper.from_array(np.asarray(values)) for values in made)
        return [next(found) if name else None for name in node.output]
    except Exception:  # whatever it stumbles over: then the weight counts as computed
        return [None] * len(node.output)


def _alone(
    node: onnx.NodeProto, known: Mapping[str, onnx.TensorProto], opset: int
) -> onnx.ModelProto:
    """A model of one node, fed what it reads."""
    declare = onnx.helper.make_tensor_value_info
    inputs = [declare(name, t.data_type, t.dims) for name, t in known.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = onnx.helper.make_graph([node], "folded", inputs, outputs)
    imports = [onnx.helper.make_opsetid("", opset)]
    made: onnx.ModelProto = onnx.helper.make_model(graph, opset_imports=imports)
    made.graph.node[0].domain = ""
    return made


def _is_bounded(model: onnx.ModelProto, known: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether what a node makes is known to be no larger than `LARGEST`."""
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    for name, tensor in known.items():
        if np.prod(tuple(tensor.dims), dtype=np.int64) <= SMALL:
            copy = asked.graph.initializer.add()
            copy.CopyFrom(tensor)
            copy.name = name
    try:
        inferred = onnx.shape_inference.infer_shapes(asked, data_prop=True).graph.output
    except Exception:  # of its own type
        return False
    for value in inferred:
        kind = value.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
        known_size = kind.HasField("shape") and min(dims, default=0) >= 0
        if not known_size or int(np.prod(dims, dtype=object)) > LARGEST:
            return False
    return True
