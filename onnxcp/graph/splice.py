"""Replace nodes by chains: model, {node: chain} → model.

The new model is made of the old one's own messages, so whatever is not replaced comes out
byte for byte. Rules, which the comments below point back to:

1. A chain writes the tensor its node wrote, so nothing downstream changes.
2. The bias stays where it was: the chain's last node reads the tensor that the old one read,
   unless the chain brings one of its own.
3. A kernel goes once nothing reads it any more: initializer, its entry among the graph's
   inputs (IR 3 lists initializers there), and nodes that read nothing but constants.
4. Equal new tensors are stored once, so nodes that share a kernel still share.
5. Up to IR 3 every initializer must be a graph input too; new ones are added there.
6. IR version and opset stay. Metadata gains `onnxcp.*` entries and loses none.
"""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx
from google.protobuf.message import Message

from onnxcp.chain import Chain
from onnxcp.graph.chains import chain_nodes
from onnxcp.graph.constants import Constants
from onnxcp.graph.index import made_names, read_names, reads
from onnxcp.graph.metadata import noted, seal
from onnxcp.graph.sites import MADE_BY_US, Site, replaced_before

LISTED_INITIALIZERS = 3  # the last IR version that wants initializers among the inputs
LARGEST_COPIED = 2**27  # elements of a tensor, of 16 bytes at most


@dataclass(frozen=True, slots=True, eq=False)
class Rewritten:
    """A model with chains in place of some nodes; `external` grew by the new tensors' names
    if the replaced kernels lay outside the file."""

    proto: onnx.ModelProto
    external: frozenset[str]


def rewrite(
    proto: onnx.ModelProto,
    chains: Mapping[str, Chain],
    sites: Iterable[Site],
    *,
    metadata: Mapping[str, str],
    external: frozenset[str] = frozenset(),
) -> Rewritten:
    """Put `chains`, by site name, in place of their nodes; `proto` is not changed.

    Without chains the result is a copy, metadata included.
    """
    chosen = {s.index: s for s in sites if s.name in chains}
    made = _copy_without_graph(proto)
    pool = Pool(_taken(proto.graph))
    for index, node in enumerate(proto.graph.node):
        if index in chosen:
            site = chosen[index]
            made.graph.node.extend(_spliced(node, site, chains[site.name], pool))
        else:
            made.graph.node.append(node)
    _add_tensors(made.graph, proto.graph.initializer)
    made.graph.input.extend(proto.graph.input)
    drop_unread(made, _dropped(proto, chosen.values(), chains))
    made.graph.initializer.extend(pool.tensors)
    if proto.ir_version <= LISTED_INITIALIZERS:  # rule 5
        made.graph.input.extend(_value_info(t) for t in pool.tensors)
    if chosen:
        _note(made, [s.name for s in chosen.values()], metadata)
    weights = _sources(proto, chosen) if external else set()
    outside = {t.name for t in pool.tensors} if external & weights else set()
    return Rewritten(made, external | outside)


def _sources(proto: onnx.ModelProto, places: Iterable[int]) -> set[str]:
    """Names of the stored tensors that the weights of some nodes are made of."""
    constants = Constants(proto.graph)
    return {n for place in places for n in constants.sources(proto.graph.node[place].input[1])}


def _dropped(
    proto: onnx.ModelProto, chosen: Iterable[Site], chains: Mapping[str, Chain]
) -> list[str]:
    """What the replaced nodes read and their chains do not."""
    names: list[str] = []
    for site in chosen:
        inputs = proto.graph.node[site.index].input
        names += inputs[1 : 2 if chains[site.name][-1].bias is None else 3]
    return [name for name in names if name]


def _copy_without_graph(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Everything but nodes, initializers and inputs, field by field: the whole may be over
    2 GiB, which a message cannot be copied at."""
    made, graph = onnx.ModelProto(), onnx.GraphProto()
    _copy_fields(proto, made, {"graph"})
    _copy_fields(proto.graph, graph, {"node", "initializer", "input"})
    made.graph.CopyFrom(graph)
    return made


def _add_tensors(graph: onnx.GraphProto, tensors: Iterable[onnx.TensorProto]) -> None:
    """Copy initializers into a graph, field by field where one alone may be over 2 GiB."""
    for tensor in tensors:
        if math.prod(tensor.dims) < LARGEST_COPIED:
            graph.initializer.append(tensor)
        else:
            _copy_fields(tensor, graph.initializer.add())


def _copy_fields(source: Message, target: Message, without: Container[str] = ()) -> None:
    for descriptor, value in source.ListFields():
        if descriptor.name in without:
            continue
        if hasattr(value, "CopyFrom"):
            getattr(target, descriptor.name).CopyFrom(value)
        elif hasattr(value, "extend"):
            getattr(target, descriptor.name).extend(value)
        else:
            setattr(target, descriptor.name, value)


def _taken(graph: onnx.GraphProto) -> set[str]:
    """Names that a new tensor may not have."""
    stored = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    return stored | {i.name for i in graph.input} | made_names(graph.node)


class Pool:
    """New initializers, each distinct content once (rule 4), under names still free."""

    def __init__(self, taken: set[str]) -> None:
        self.tensors: list[onnx.TensorProto] = []
        self._taken = set(taken)
        self._known: dict[tuple[int, tuple[int, ...], bytes], str] = {}

    def add(self, tensor: onnx.TensorProto) -> str:
        key = (tensor.data_type, tuple(tensor.dims), tensor.raw_data)
        if key not in self._known:
            while tensor.name in self._taken:
                tensor.name += "_"
            self._taken.add(tensor.name)
            self._known[key] = tensor.name
            self.tensors.append(tensor)
        return self._known[key]


def _spliced(node: onnx.NodeProto, site: Site, chain: Chain, pool: Pool) -> list[onnx.NodeProto]:
    """The chain's nodes, reading and writing what the old one did (rules 1 and 2)."""
    source, target, dtype = node.input[0], node.output[0], site.kernel.dtype
    made = chain_nodes(chain, site.name, source, target, dtype, site.layer.op)
    stored = {t.name: pool.add(t) for t in made.initializers}
    for new in made.nodes:
        renamed = [stored.get(name, name) for name in new.input]
        del new.input[:]
        new.input.extend(renamed)
    if chain[-1].bias is None and len(node.input) > 2 and node.input[2]:
        made.nodes[-1].input.append(node.input[2])
    return list(made.nodes)


def drop_unread(made: onnx.ModelProto, names: Iterable[str]) -> None:
    """Remove those of some tensors that nothing reads any more (rule 3)."""
    graph, constant = made.graph, Constants(made.graph).names
    candidates, kept = list(names), _trained(made)
    while candidates:
        name = candidates.pop()
        read = read_names(graph) | kept
        if not name or name in read:
            continue
        for node in [n for n in graph.node if name in n.output]:
            if constant.issuperset(node.output) and not read & set(node.output):
                candidates += node.input
                graph.node.remove(node)
        for entries in (graph.initializer, graph.input, graph.value_info):
            for place in [i for i, e in enumerate(entries) if e.name == name][::-1]:
                del entries[place]
        sparse = graph.sparse_initializer
        for place in [i for i, e in enumerate(sparse) if e.values.name == name][::-1]:
            del sparse[place]


def _trained(made: onnx.ModelProto) -> set[str]:
    """Names that the model's training graphs read or update."""
    names: set[str] = set()
    for training in made.training_info:
        names |= read_names(training.initialization) | read_names(training.algorithm)
        for binding in (*training.initialization_binding, *training.update_binding):
            names |= {binding.key, binding.value}
    return names


def _value_info(tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    info: onnx.ValueInfoProto = onnx.helper.make_tensor_value_info(
        tensor.name, tensor.data_type, tensor.dims
    )
    return info


def _note(made: onnx.ModelProto, replaced: list[str], metadata: Mapping[str, str]) -> None:
    """Record what was done in the model's metadata (rule 6)."""
    listed = noted((*replaced_before(made), *replaced))
    entries = {**metadata, MADE_BY_US: listed}
    kept = [p for p in made.metadata_props if p.key not in entries]
    fresh = [onnx.StringStringEntryProto(key=k, value=v) for k, v in sorted(entries.items())]
    kept = [onnx.StringStringEntryProto(key=p.key, value=p.value) for p in kept]
    del made.metadata_props[:]
    made.metadata_props.extend(kept + fresh)
    seal(made)


def only(proto: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """The part of a model that computes some tensors, now its only outputs."""
    made = rewrite(proto, {}, (), metadata={}).proto
    needed, kept = set(names), []
    for node in reversed(made.graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed.update(reads(node))
    del made.graph.node[:], made.graph.output[:]
    made.graph.node.extend(reversed(kept))
    made.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    dropped = {t.name for t in made.graph.initializer} - needed
    for values in (made.graph.initializer, made.graph.input):  # up to IR 3 weights are inputs, too
        for place in [i for i, value in enumerate(values) if value.name in dropped][::-1]:
            del values[place]
    return made


def with_outputs(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The model with more of its tensors among its outputs, after those it has."""
    made = rewrite(proto, {}, (), metadata={}).proto
    add_outputs(made, names)
    return made


def add_outputs(made: onnx.ModelProto, names: Sequence[str]) -> None:
    """Put more of a model's tensors among its outputs, without a copy of it."""
    known = {output.name for output in made.graph.output}
    more = [onnx.ValueInfoProto(name=name) for name in names if name not in known]
    made.graph.output.extend(more)
