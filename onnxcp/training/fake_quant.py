"""Fake quantization: the int8 model in float arithmetic, for training with gradients.

The graph is that of the quantized model. The int8 weights of Conv, Gemm and MatMul are float
initializers here, under their names in the float model; they are rounded where they are read,
with the scales that the quantizer would choose for their current values. Their biases, whose
steps are thousands of times finer, are not rounded. Activations are rounded with the fixed scales
of their ranges. Other int8 tensors stay as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from onnxcp.graph import index
from onnxcp.graph.operators import operator
from onnxcp.quantization.precision import PRODUCTS
from onnxcp.quantization.scheme import Scheme
from onnxcp.quantization.static import Prepared

DOMAIN = "onnxcp"
MAX_WEIGHT = {"int8": (127, 64), "uint8": (255, 127)}  # with 8 bits, and with a reduced range
BIAS_INPUT = 2  # index among the inputs of a Conv or Gemm

Tensors = Mapping[str, onnx.TensorProto]
Makers = Mapping[str, onnx.NodeProto]


@dataclass(frozen=True, slots=True)
class Rounding:
    """An activation that is rounded: tensor `source` before and `result` after rounding.

    The int8 model holds it as the tensor `integers`, with values from `low` to `high`.
    """

    source: str
    integers: str
    result: str
    scale: float
    zero_point: int
    low: int
    high: int

    def values(self, integers: np.ndarray) -> np.ndarray:
        """The float32 values that integers represent."""
        offsets = integers.astype(np.float32) - self.zero_point
        values: np.ndarray = np.float32(self.scale) * offsets
        return values

    def steps_between(self, before: np.ndarray, after: np.ndarray) -> float:
        """The largest change of a value by rounding, in steps of the scale.

        Values outside the range count from its end. Rounding to nearest gives at most 0.5.
        """
        ends = self.values(np.array([self.low, self.high]))
        return float(np.abs(np.clip(before, *ends) - after).max(initial=0)) / self.scale


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """An int8 model, and the float graph with rounding that training runs instead."""

    int8: onnx.ModelProto
    graph: onnx.ModelProto
    roundings: tuple[Rounding, ...]

    @property
    def with_integers(self) -> list[str]:
        """Tensors of the int8 model: its outputs, then the integers of all activations."""
        outputs = [output.name for output in self.int8.graph.output]
        return [*outputs, *(rounding.integers for rounding in self.roundings)]

    def in_pieces(self) -> onnx.ModelProto:
        """The graph cut at every rounding: its source becomes an output, its result an input."""
        model = onnx.ModelProto()
        model.CopyFrom(self.graph)
        nodes = [n for n in model.graph.node if operator(n) != f"{DOMAIN}.FakeQuantize"]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        model.graph.input.extend(_float(r.result) for r in self.roundings)
        outputs = {o.name for o in model.graph.output}
        sources = dict.fromkeys(r.source for r in self.roundings)
        model.graph.output.extend(_float(name) for name in sources if name not in outputs)
        return model


def simulated(prepared: Prepared) -> Simulation:
    """The graph that training runs instead of the int8 model.

    Besides ONNX operators it has `FakeQuantize` and `FakeQuantizeWeight` of the domain `onnxcp`,
    which `torchgraph` computes.

    Raises:
        ModelError: ONNX Runtime's quantizer fails.
    """
    prepared = prepared.corrected()
    int8, model = prepared.quantized(), onnx.ModelProto()
    model.CopyFrom(int8)
    graph = model.graph
    makers = index.makers(graph.node)
    stored = {t.name: t for t in graph.initializer}
    floats = {t.name: t for t in prepared.folded.graph.initializer}
    float_nodes, names = {n.name: n for n in prepared.folded.graph.node}, set(prepared.nodes)
    unread = set[str]()
    for node in graph.node:
        if operator(node) in PRODUCTS and node.name in names:
            unread |= _read_floats(node, float_nodes[node.name], floats, makers, prepared.scheme)
    rounded = [n for n in graph.node if operator(n) == "DequantizeLinear" and n.input[0] in makers]
    roundings = tuple(_rounding(node, makers[node.input[0]], stored) for node in rounded)
    for node, rounding in zip(rounded, roundings, strict=True):
        _turn_into(node, "FakeQuantize", rounding.source, _fixed(rounding))
    _store(graph, floats, unread | {r.integers for r in roundings})
    model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return Simulation(int8, model, roundings)


def _read_floats(
    node: onnx.NodeProto,
    float_node: onnx.NodeProto,
    floats: Tensors,
    makers: Makers,
    scheme: Scheme,
) -> set[str]:
    """Make a product read the float tensors of its node in the float model.

    Its weight is rounded, its bias is not. Returns the outputs of nodes that are no longer read.
    """
    unread = set[str]()
    for place, name in enumerate(float_node.input):
        maker = makers.get(node.input[place])
        if name not in floats or maker is None:
            continue
        if place == BIAS_INPUT:
            unread.add(maker.output[0])
            node.input[place] = name
        elif operator(maker) == "DequantizeLinear":
            high = MAX_WEIGHT[scheme.weights][scheme.reduce_range]
            ends = {"low": -high if scheme.weights == "int8" else 0, "high": high}
            axis = {a.name: a.i for a in maker.attribute if a.name == "axis"}
            _turn_into(maker, "FakeQuantizeWeight", name, {**ends, **axis})
    return unread


def _rounding(node: onnx.NodeProto, maker: onnx.NodeProto, stored: Tensors) -> Rounding:
    """The rounding of a QuantizeLinear, `maker`, and the DequantizeLinear after it, `node`."""
    scale, zero = (onnx.numpy_helper.to_array(stored[name]) for name in node.input[1:])
    ends = np.iinfo(zero.dtype)
    return Rounding(
        source=maker.input[0],
        integers=maker.output[0],
        result=node.output[0],
        scale=scale.item(),
        zero_point=zero.item(),
        low=int(ends.min),
        high=int(ends.max),
    )


def _fixed(rounding: Rounding) -> dict[str, float]:
    return {key: getattr(rounding, key) for key in ("scale", "zero_point", "low", "high")}


def _turn_into(node: onnx.NodeProto, op: str, reads: str, attributes: Mapping[str, float]) -> None:
    del node.input[:], node.attribute[:]
    node.op_type, node.domain = op, DOMAIN
    node.input.append(reads)
    node.attribute.extend(onnx.helper.make_attribute(k, v) for k, v in attributes.items())


def _store(graph: onnx.GraphProto, floats: Tensors, unread: set[str]) -> None:
    """Remove the nodes whose outputs are unread, and store the float tensors the others read."""
    nodes = [n for n in graph.node if not unread.intersection(n.output)]
    del graph.node[:]
    graph.node.extend(nodes)
    stored = {**floats, **{t.name: t for t in graph.initializer}}
    read = {*(name for n in nodes for name in n.input), *(o.name for o in graph.output)}
    tensors = [tensor for name, tensor in stored.items() if name in read]
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def _float(name: str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
