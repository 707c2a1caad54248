"""A copy of a model under change: who makes and who reads each tensor, which values are stored.

Passes find nodes by what they make and read, put others in their place, and store new tensors.
Names that a caller sees (inputs and outputs of the graph, tensors that subgraphs read) stay.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxcp.graph.constants import Constants
from onnxcp.graph.index import read_names
from onnxcp.graph.operators import normalized, operator
from onnxcp.graph.shapes import Shapes, element_type
from onnxcp.graph.splice import LISTED_INITIALIZERS, rewrite

Node = onnx.NodeProto


class Edit:
    """A model's main graph, copied and open to change; `finish` gives the new model. `shapes` are
    the concrete shapes of its tensors, as far as they are known."""

    def __init__(self, proto: onnx.ModelProto, shapes: Shapes) -> None:
        self.shapes = shapes
        self.proto = rewrite(proto, {}, (), metadata={}).proto
        graph = self.proto.graph
        self.nodes: list[Node] = list(graph.node)
        self.opset = next((o.version for o in proto.opset_import if normalized(o.domain) == ""), 0)
        self.maker: dict[str, Node] = {}
        self.readers: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            self._enter(node)
        self.visible = _visible(self.proto)
        self._constants = Constants.of(self.proto)
        self._replaceable = _replaceable(self.proto.graph)
        self._stored: dict[str, np.ndarray] = {}
        self._taken = {*self.maker, *self.readers, *self.visible}
        self._taken |= {t.name for t in graph.initializer} | {i.name for i in graph.input}
        self._replaced: dict[int, list[Node]] = {}  # by the identity of the node they stand for
        self._gone: set[int] = set()
        self._unread: list[str] = []
        self._keys: dict[int, tuple[int, ...]]  # the order of nodes, those put in place below
        self._keys = {id(node): (place,) for place, node in enumerate(self.nodes)}

    def value(self, name: str) -> np.ndarray | None:
        """The stored values behind a name; None where they are computed, fed, of a type that is
        unknown, or such that a caller may replace them."""
        if name in self._stored:
            return self._stored[name]
        tensor = self._constants.find(name) if name else None
        if tensor is None or element_type(tensor.data_type) is None:
            return None
        if self._replaceable and self._constants.sources(name) & self._replaceable:
            return None
        return onnx.numpy_helper.to_array(tensor)

    def number(self, name: str) -> float | None:
        """The one finite number behind a name; None for anything else."""
        values = self.value(name)
        if values is None or values.size != 1 or values.dtype.kind != "f":
            return None
        number = float(values.reshape(-1)[0])
        return number if np.isfinite(number) else None

    def is_inner(self, name: str) -> bool:
        """Whether a tensor is made and read by nodes of this graph alone, so that it may go."""
        return name in self.maker and name not in self.visible

    def only_reader(self, name: str) -> Node | None:
        """The one node that reads a tensor, which nothing else sees; None otherwise."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and self.is_inner(name) else None

    def read_by_one(self, name: str, node: Node) -> bool:
        """Whether nothing but `node` sees a tensor."""
        return self.is_inner(name) and all(n is node for n in self.readers[name])

    def store(self, values: np.ndarray, name: str) -> str:
        """Store a new tensor, under a free name like the one given."""
        name = self.fresh(name)
        self._stored[name] = np.ascontiguousarray(values)
        return name

    def fresh(self, name: str) -> str:
        """A free name like the one given, taken from now on."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def replace(self, old: Sequence[Node], new: Sequence[Node]) -> None:
        """Put nodes in the place of the last of some others, in their order; what the others read
        and nothing reads any more goes in the end."""
        last = max(old, key=lambda node: self._keys[id(node)])
        for node in old:
            self._leave(node)
        self._replaced[id(last)] = list(new)
        for place, node in enumerate(new):
            self._keys[id(node)] = (*self._keys[id(last)], place)
            self._enter(node)

    def finish(self) -> onnx.ModelProto:
        """The changed model."""
        graph = self.proto.graph
        nodes = [new for old in self.nodes for new in self._now(old)]
        kept = [Node.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)
        self._write_tensors()
        self._drop_unread()
        return self.proto

    def _now(self, node: Node) -> Iterable[Node]:
        """The nodes that stand now where a node stood."""
        for new in self._replaced.get(id(node), () if id(node) in self._gone else (node,)):
            if new is node:
                yield new
            else:
                yield from self._now(new)

    def _enter(self, node: Node) -> None:
        for name in node.output:
            if name:
                self.maker[name] = node
        for name in (n for n in node.input if n):
            self.readers[name].append(node)

    def _leave(self, node: Node) -> None:
        self._gone.add(id(node))
        for name in node.output:
            self.maker.pop(name, None)
        for name in (n for n in node.input if n):
            self.readers[name] = [n for n in self.readers[name] if n is not node]
            self._unread.append(name)

    def _drop_unread(self) -> None:
        """Remove stored tensors, and nodes that compute of these alone, which nothing reads now
        that nodes are gone."""
        graph, doubtful = self.proto.graph, set(self._unread)
        while doubtful:
            gone = doubtful - read_names(graph) - self.visible
            doubtful = set[str]()
            for node in [n for n in graph.node if n.output and gone.issuperset(n.output)]:
                if self._constants.names.issuperset(node.output):
                    doubtful.update(node.input)
                    graph.node.remove(node)
            gone -= {value.name for value in graph.input} - {t.name for t in graph.initializer}
            for entries in (graph.initializer, graph.input, graph.value_info):
                for place in [i for i, e in enumerate(entries) if e.name in gone][::-1]:
                    del entries[place]

    def _write_tensors(self) -> None:
        graph, read = self.proto.graph, read_names(self.proto.graph)
        tensors = [
            onnx.numpy_helper.from_array(values, name)
            for name, values in self._stored.items()
            if name in read
        ]
        graph.initializer.extend(tensors)
        if self.proto.ir_version <= LISTED_INITIALIZERS:
            declare = onnx.helper.make_tensor_value_info
            graph.input.extend(declare(t.name, t.data_type, t.dims) for t in tensors)


class Upstream:
    """A walk against the flow, from what a node makes, through nodes that nothing else reads.

    `nodes` are those taken so far, the last of the row first; `reading` is the tensor before."""

    def __init__(self, edit: Edit, end: Node) -> None:
        self._edit, self.reading = edit, str(end.output[0])
        self.nodes: list[Node] = []

    @property
    def maker(self) -> Node | None:
        """What makes the tensor before, if the walk may go on there."""
        node = self._edit.maker.get(self.reading)
        is_alone = not self.nodes or self._edit.read_by_one(self.reading, self.nodes[-1])
        return node if is_alone else None

    def take(self, source: str) -> None:
        """Step over the maker, to one of the tensors that it reads."""
        node = self.maker
        assert node is not None
        self.nodes.append(node)
        self.reading = source


@dataclass(frozen=True, slots=True)
class Pass:
    """A change of a graph that computes the same: what it changes in words, and the function that
    does it, which gives in how many places it did."""

    words: str
    apply: Callable[[Edit], int]


def _replaceable(graph: onnx.GraphProto) -> set[str]:
    """Stored tensors that are listed among the inputs: a caller may feed others."""
    return {tensor.name for tensor in graph.initializer} & {value.name for value in graph.input}


def _visible(proto: onnx.ModelProto) -> set[str]:
    """Tensors that are seen outside the main graph's nodes: its outputs, and what subgraphs and
    training read."""
    names = {output.name for output in proto.graph.output}
    for node in proto.graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                names |= read_names(inner)
    for training in proto.training_info:
        names |= read_names(training.initialization) | read_names(training.algorithm)
        for binding in (*training.initialization_binding, *training.update_binding):
            names |= {binding.key, binding.value}
    return names


def attribute(node: Node, name: str, default: float) -> float:
    """A number among a node's attributes."""
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else float(onnx.helper.get_attribute_value(found))


def is_a(node: Node | None, *operators: str) -> bool:
    """Whether a node is one of some operators of the standard."""
    return node is not None and operator(node) in operators
