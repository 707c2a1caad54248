"""Contexts: small models of a layer and the nodes after it that a runtime fuses with it.

A runtime folds a BatchNormalization into the convolution before it, and runs a following Add and
activation inside its kernel. A pool after them takes several times longer on int8 if its input is
computed in float, because of the memory layout (ONNX Runtime 1.31 on CPUs). A chain should be timed
where it will be, so the context of a site is a small model of its node and these followers, at the
shapes of the run.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnxcp.chain import Chain
from onnxcp.errors import UsageError
from onnxcp.graph.constants import Constants
from onnxcp.graph.input_specs import Shape
from onnxcp.graph.operators import operator
from onnxcp.graph.shapes import Shapes
from onnxcp.graph.sites import Site
from onnxcp.graph.splice import rewrite

FOLLOWERS = ("BatchNormalization", "Add", "Mul")
ACTIVATIONS = ("Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "PRelu")
POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool")


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """A site's node and its followers.

    `fed` are the shapes of their inputs, `stored` their constants. Contexts with the same `key`
    take equally long.
    """

    site: Site  # of the small model: its node is the first
    nodes: tuple[onnx.NodeProto, ...]
    fed: Mapping[str, Shape]
    stored: Mapping[str, onnx.TensorProto]
    key: str
    graph: "Graph"

    def model(self, chain: Chain | None) -> bytes:
        """The serialized model with a chain in place of the node; unchanged for None."""
        chains = {} if chain is None else {self.site.name: chain}
        made = rewrite(self._proto(), chains, [self.site], metadata={}).proto
        serialized: bytes = made.SerializeToString()
        return serialized

    def feeds(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Random inputs."""
        dtype = self.site.kernel.dtype
        return {n: rng.standard_normal(shape).astype(dtype) for n, shape in self.fed.items()}

    def _proto(self) -> onnx.ModelProto:
        kind = onnx.helper.np_dtype_to_tensor_dtype(self.site.kernel.dtype)
        tensors = [_named(tensor, name) for name, tensor in self.stored.items()]
        declare = onnx.helper.make_tensor_value_info
        inputs = [declare(n, kind, shape) for n, shape in self.fed.items()]
        listed = [t for t in tensors if t.name in self.graph.listed]
        inputs += [declare(t.name, t.data_type, t.dims) for t in listed]
        outputs = [onnx.ValueInfoProto(name=self.nodes[-1].output[0])]
        graph = onnx.helper.make_graph(self.nodes, "context", inputs, outputs, tensors)
        made = onnx.ModelProto(ir_version=self.graph.proto.ir_version, graph=graph)
        made.opset_import.extend(self.graph.proto.opset_import)
        return made


class Graph:
    """A model's graph, in which contexts are looked up.

    `listed` are the graph's inputs: the runtime does not treat a stored tensor among them as a
    constant.
    """

    def __init__(self, proto: onnx.ModelProto, shapes: Shapes) -> None:
        self.proto, self.shapes = proto, shapes
        self.constants = Constants.of(proto)
        self.listed = {i.name for i in proto.graph.input}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in proto.graph.node:
            for name in set(node.input):
                self._readers.setdefault(name, []).append(node)
        for output in proto.graph.output:
            self._readers.setdefault(output.name, []).append(onnx.NodeProto())

    def context(self, site: Site) -> Context:
        """The context of a site.

        Raises:
            UsageError: the size of the site's input is unknown.
        """
        nodes = self._nodes(self.proto.graph.node[site.index])
        written = {name for node in nodes for name in node.output}
        read = [n for n in dict.fromkeys(i for node in nodes for i in node.input) if n]
        stored = {n: t for n in read if (t := self.constants.find(n)) is not None}
        others = [n for n in read if n not in stored and n not in written and n != site.source]
        fed = {site.source: _read(site), **{n: self.shapes[n] for n in others}}
        inside = replace(site, index=0)
        return Context(inside, nodes, fed, stored, _key(inside, nodes, fed, stored, self), self)

    def _nodes(self, node: onnx.NodeProto) -> tuple[onnx.NodeProto, ...]:
        """A node and its followers, to the first activation or the second Add, and a pool."""
        nodes = [node]
        while operator(nodes[-1]) not in ACTIVATIONS:
            follower = self._follower(nodes[-1].output[0], (*FOLLOWERS, *ACTIVATIONS))
            if follower is None or operator(follower) in [operator(n) for n in nodes]:
                break
            nodes.append(follower)
        pool = self._follower(nodes[-1].output[0], POOLS)
        return (*nodes, pool) if pool is not None else tuple(nodes)

    def _follower(self, written: str, kinds: Sequence[str]) -> onnx.NodeProto | None:
        """The only reader of a tensor, if it is of these kinds."""
        readers = self._readers.get(written, [])
        if len(readers) != 1 or operator(readers[0]) not in kinds:
            return None
        others = [name for name in readers[0].input if name not in ("", written)]
        known = all(self.constants.find(n) is not None or n in self.shapes for n in others)
        return readers[0] if known else None


def _read(site: Site) -> Shape:
    """The shape of a site's input."""
    if site.image is None:
        raise UsageError(
            f"{site.name}: its input size is not fixed by the model; pass <<input_shape>>"
        )
    channels = site.shape[1] * site.group
    if site.geometry.dimensions:
        return (site.batch, channels, *site.image)
    return (site.batch, *site.image, channels)


def _named(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    made = onnx.TensorProto()
    made.CopyFrom(tensor)
    made.name = name
    return made


def _key(
    site: Site,
    nodes: Sequence[onnx.NodeProto],
    fed: Mapping[str, Shape],
    stored: Mapping[str, onnx.TensorProto],
    graph: Graph,
) -> str:
    """The hash of all that a time depends on, without names and weights."""
    kinds = {name: f"fed {shape}" for name, shape in fed.items()}
    for name, tensor in stored.items():
        kinds[name] = f"stored {tensor.data_type} {list(tensor.dims)} {name in graph.listed}"
    described = [
        (
            operator(node),
            sorted(a.SerializeToString(deterministic=True).hex() for a in node.attribute),
            [kinds.get(name, "inner") for name in node.input],
        )
        for node in nodes
    ]
    geometry = (site.geometry.strides, site.geometry.dilations, site.geometry.pads)
    fixed = (geometry, site.shape, site.group, str(site.kernel.dtype))
    return hashlib.sha256(json.dumps([fixed, described]).encode()).hexdigest()[:16]
