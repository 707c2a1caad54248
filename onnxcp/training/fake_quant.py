"""The int8 model as training sees it: in float arithmetic that gradients go through.

The graph is that of the quantized model. Weights of Conv, Gemm and MatMul that are stored in
int8 there are float initializers here, under their names in the float model, and are rounded
where they are read, in the steps that the quantizer would take for the values they have by then.
Their biases, whose steps are thousands of times finer, are not rounded. Activations are rounded
in the fixed steps of their ranges. What else is stored in int8 stays as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from onnxcp.graph.operators import operator
from onnxcp.graph.splice import with_outputs
from onnxcp.quantization.precision import PRODUCTS
from onnxcp.quantization.scheme import Scheme
from onnxcp.quantization.static import Prepared

DOMAIN = "onnxcp"
LARGEST = {"int8": (127, 64), "uint8": (255, 127)}  # of a weight's 8 bits, and of 7
BIAS = 2  # its place among a product's inputs

Tensors = Mapping[str, onnx.TensorProto]
Makers = Mapping[str, onnx.NodeProto]


@dataclass(frozen=True, slots=True)
class Rounding:
    """An activation that is rounded: `read` before and `given` after it. The int8 model holds
    it as `integers` from `low` to `high`."""

    read: str
    integers: str
    given: str
    scale: float
    zero_point: int
    low: int
    high: int

    def values(self, integers: np.ndarray) -> np.ndarray:
        """What integers stand for."""
        made: np.ndarray = np.float32(self.scale) * (integers.astype(np.float32) - self.zero_point)
        return made

    def steps_between(self, before: np.ndarray, after: np.ndarray) -> float:
        """How many steps values were moved at most, those outside the range counted from its
        end; up to a half where each went to what is nearest."""
        ends = self.values(np.array([self.low, self.high]))
        return float(np.abs(np.clip(before, *ends) - after).max(initial=0)) / self.scale


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """An int8 model, and the graph that training runs in its place."""

    int8: onnx.ModelProto
    graph: onnx.ModelProto
    roundings: tuple[Rounding, ...]

    def watched(self) -> onnx.ModelProto:
        """The int8 model with the integers of all activations among its outputs."""
        return with_outputs(self.int8, [r.integers for r in self.roundings])

    def parted(self) -> onnx.ModelProto:
        """The graph in pieces from one rounding to the next: what is rounded is an output, and
        what that gives is fed."""
        made = onnx.ModelProto()
        made.CopyFrom(self.graph)
        nodes = [n for n in made.graph.node if operator(n) != f"{DOMAIN}.FakeQuantize"]
        del made.graph.node[:]
        made.graph.node.extend(nodes)
        made.graph.input.extend(_float(r.given) for r in self.roundings)
        known = {o.name for o in made.graph.output}
        read = dict.fromkeys(r.read for r in self.roundings)
        made.graph.output.extend(_float(name) for name in read if name not in known)
        return made


def simulated(prepared: Prepared) -> Simulation:
    """What training runs in place of the int8 model. Its graph has `FakeQuantize` and
    `FakeQuantizeWeight` among the standard's operators, which `finetune` computes.

    Raises:
        ModelError: ONNX Runtime's quantizer fails.
    """
    prepared = prepared.corrected()
    int8, made = prepared.quantized(), onnx.ModelProto()
    made.CopyFrom(int8)
    graph = made.graph
    makers = {name: node for node in graph.node for name in node.output}
    stored = {t.name: t for t in graph.initializer}
    floats = {t.name: t for t in prepared.folded.graph.initializer}
    twins, names = {n.name: n for n in prepared.folded.graph.node}, set(prepared.nodes)
    unread = set[str]()
    for node in graph.node:
        if operator(node) in PRODUCTS and node.name in names:
            unread |= _freed(node, twins[node.name], floats, makers, prepared.scheme)
    rounded = [n for n in graph.node if operator(n) == "DequantizeLinear" and n.input[0] in makers]
    roundings = tuple(_rounding(node, makers[node.input[0]], stored) for node in rounded)
    for node, rounding in zip(rounded, roundings, strict=True):
        _become(node, "FakeQuantize", rounding.read, _fixed(rounding))
    _store(graph, floats, unread | {r.integers for r in roundings})
    made.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return Simulation(int8, made, roundings)


def _freed(
    node: onnx.NodeProto, twin: onnx.NodeProto, floats: Tensors, makers: Makers, scheme: Scheme
) -> set[str]:
    """Have a product read the floats that its twin in the float model reads: a weight rounded,
    a bias as it is. The outputs of nodes that have nothing to do any more."""
    unread = set[str]()
    for place, name in enumerate(twin.input):
        maker = makers.get(node.input[place])
        if name not in floats or maker is None:
            continue
        if place == BIAS:
            unread.add(maker.output[0])
            node.input[place] = name
        elif operator(maker) == "DequantizeLinear":
            high = LARGEST[scheme.weights][scheme.reduce_range]
            ends = {"low": -high if scheme.weights == "int8" else 0, "high": high}
            axis = {a.name: a.i for a in maker.attribute if a.name == "axis"}
            _become(maker, "FakeQuantizeWeight", name, {**ends, **axis})
    return unread


def _rounding(node: onnx.NodeProto, maker: onnx.NodeProto, stored: Tensors) -> Rounding:
    """What a QuantizeLinear and the DequantizeLinear after it do."""
    scale, zero = (onnx.numpy_helper.to_array(stored[name]) for name in node.input[1:])
    ends = np.iinfo(zero.dtype)
    return Rounding(
        read=maker.input[0],
        integers=maker.output[0],
        given=node.output[0],
        scale=scale.item(),
        zero_point=zero.item(),
        low=int(ends.min),
        high=int(ends.max),
    )


def _fixed(rounding: Rounding) -> dict[str, float]:
    return {key: getattr(rounding, key) for key in ("scale", "zero_point", "low", "high")}


def _become(node: onnx.NodeProto, op: str, reads: str, attributes: Mapping[str, float]) -> None:
    del node.input[:], node.attribute[:]
    node.op_type, node.domain = op, DOMAIN
    node.input.append(reads)
    node.attribute.extend(onnx.helper.make_attribute(k, v) for k, v in attributes.items())


def _store(graph: onnx.GraphProto, floats: Tensors, unread: set[str]) -> None:
    """Drop the nodes that give what is read no more, and store what the others read."""
    nodes = [n for n in graph.node if not unread.intersection(n.output)]
    del graph.node[:]
    graph.node.extend(nodes)
    known = {**floats, **{t.name: t for t in graph.initializer}}
    read = {*(name for n in nodes for name in n.input), *(o.name for o in graph.output)}
    kept = [tensor for name, tensor in known.items() if name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _float(name: str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
