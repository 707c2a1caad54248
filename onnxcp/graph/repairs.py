"""Repairs of models that ONNX Runtime runs and the ONNX checker refuses.

Each is a row of `REPAIRS`: it changes a model in place, in nothing that it computes, and says
what it changed, or None where there is nothing to do. What the runtime makes of such a model
decides what its repair is (ONNX Runtime 1.31).
"""

from collections import Counter
from collections.abc import Callable, Sequence

import onnx

from onnxcp.graph import index
from onnxcp.graph.nested import graphs
from onnxcp.graph.operators import STANDARD
from onnxcp.graph.shapes import skeleton

LISTED = 3  # the last IR version that wants initializers among the inputs, and the first of opsets
UNLISTED = 4
VALUES = ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")


def repaired(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Repair a model in place; what was done, in words."""
    return tuple(note for repair in REPAIRS if (note := repair(proto)) is not None)


def _versions(proto: onnx.ModelProto) -> str | None:
    """Up to IR 3 every initializer must be an input; below 3 there are no opset imports. The
    runtime takes both, and initializers of IR 3 for constants, as those of IR 4 are."""
    before = proto.ir_version
    if before < LISTED and proto.opset_import:
        proto.ir_version = LISTED
    known = {i.name for g in graphs(proto) for i in g.input}
    unlisted = sum(t.name not in known for g in graphs(proto) for t in g.initializer)
    if proto.ir_version <= LISTED and unlisted:
        proto.ir_version = UNLISTED
    if proto.ir_version == before:
        return None
    why = f", which lets {_plural(unlisted, 'weight')} be no input" if unlisted else ""
    return f"IR version {before} became {proto.ir_version}{why}"


def _name(proto: onnx.ModelProto) -> str | None:
    if proto.graph.name:
        return None
    proto.graph.name = "graph"
    return "the graph has a name now"


def _domains(proto: onnx.ModelProto) -> str | None:
    """Nodes of "ai.onnx" where only "" is imported, or the other way round, and domains without
    an import, of which the runtime takes the operators it has."""
    imported, changed = {o.domain for o in proto.opset_import}, list[str]()
    for node in (node for graph in graphs(proto) for node in graph.node):
        if node.domain in imported:
            continue
        if node.domain in STANDARD and (other := imported & {*STANDARD}):
            node.domain = other.pop()
            changed.append("ai.onnx")
        elif node.domain not in STANDARD:
            proto.opset_import.append(onnx.helper.make_opsetid(node.domain, 1))
            imported.add(node.domain)
            changed.append(node.domain)
    if not changed:
        return None
    return f"imports and nodes agree about the domain {', '.join(dict.fromkeys(changed))}"


def _order(proto: onnx.ModelProto) -> str | None:
    """Nodes in an order in which each is behind what it reads, otherwise as they stood."""
    made = [_sorted(graph) for graph in graphs(proto)]
    return "nodes were put in an order in which they can run" if any(made) else None


def _sorted(graph: onnx.GraphProto) -> bool:
    nodes, places = list(graph.node), index.places(graph.node)
    wanted = [{places[name] for name in index.reads(node) if name in places} for node in nodes]
    if all(max(places, default=-1) < n for n, places in enumerate(wanted)):
        return False
    order, done = list[int](), set[int]()
    for first in range(len(nodes)):
        waiting = [first]
        while waiting:
            place = waiting[-1]
            missing = sorted(wanted[place] - done, reverse=True)
            if place in done or not missing or set(missing) & set(waiting):  # the last: a circle
                waiting.pop()
                order += [place] * (place not in done)
                done.add(place)
            else:
                waiting += missing
    copies = [onnx.NodeProto.FromString(nodes[place].SerializeToString()) for place in order]
    del graph.node[:]
    graph.node.extend(copies)
    return True


def _twice_stored(proto: onnx.ModelProto) -> str | None:
    """Of initializers of one name the runtime takes the first, whatever its warning says."""
    names = list[str]()
    for graph in graphs(proto):
        first = {t.name: place for place, t in reversed(list(enumerate(graph.initializer)))}
        for place in reversed(range(len(graph.initializer))):
            name = graph.initializer[place].name
            if first[name] != place:
                names.append(name)
                del graph.initializer[place]
    return f"of weights stored twice the first was kept: {_listed(names)}" if names else None


def _two_values(proto: onnx.ModelProto) -> str | None:
    """Of a tensor stored in two ways the runtime reads the raw bytes."""
    names = list[str]()
    for tensor in (t for graph in graphs(proto) for t in graph.initializer):
        others = [f for f in VALUES if len(getattr(tensor, f))]
        if tensor.HasField("raw_data") and others:
            names.append(tensor.name)
            for field in others:
                tensor.ClearField(field)
    return f"values stored beside the raw ones were dropped: {_listed(names)}" if names else None


def _metadata(proto: onnx.ModelProto) -> str | None:
    """Of entries with one key the last is kept."""
    last = {p.key: p.value for p in proto.metadata_props}
    if len(last) == len(proto.metadata_props):
        return None
    often = [k for k, n in Counter(p.key for p in proto.metadata_props).items() if n > 1]
    del proto.metadata_props[:]
    for key, value in last.items():
        proto.metadata_props.add(key=key, value=value)
    return f"of metadata under one key the last was kept: {_listed(often)}"


def _shapes(proto: onnx.ModelProto) -> str | None:
    """Outputs without type or shape get those that shape inference finds."""
    missing = [output for output in proto.graph.output if not _has_shape(output)]
    if not missing:
        return None
    found = skeleton(proto, {})
    fed = {value.name: value for value in proto.graph.input}
    for value in found.graph.input:
        if value.name in fed:
            value.CopyFrom(fed[value.name])
    try:
        inferred = onnx.shape_inference.infer_shapes(found, data_prop=True).graph.output
    except Exception:  # of its own type; what the runtime says of such a model is clearer
        return None
    known = {value.name: value.type for value in inferred if _has_shape(value)}
    done = [output for output in missing if output.name in known]
    for output in done:
        output.type.CopyFrom(known[output.name])
    names = [output.name for output in done]
    return f"the shape of outputs was added: {_listed(names)}" if names else None


def _has_shape(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.WhichOneof("value")
    return kind is not None and (kind != "tensor_type" or value.type.tensor_type.HasField("shape"))


def _listed(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


Repair = Callable[[onnx.ModelProto], str | None]
REPAIRS: tuple[Repair, ...] = (
    _versions,
    _name,
    _domains,
    _twice_stored,
    _two_values,
    _metadata,
    _order,
    _shapes,
)
