"""Which nodes of a model a rewrite replaced, and whether it left all the rest as it was.

Compares messages byte for byte and knows nothing of what nodes compute. Nodes are matched by
the tensors they write; those inside If and Loop bodies belong to their node, and local
functions to the model. Where the bytes of a tensor lie, in the model's file or beside it, is
no difference.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx
from google.protobuf.message import Message

from onnxcp.graph import chain_names, index
from onnxcp.graph.constants import Constants
from onnxcp.graph.metadata import OURS
from onnxcp.graph.operators import operator

STORAGE = ("data_location", "external_data")  # fields of a tensor


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """`replaced` nodes of the reference write what others of the candidate write now: those are
    among its `fresh` nodes, which no node of the reference equals. `failures` say what else
    differs."""

    replaced: tuple[onnx.NodeProto, ...]
    fresh: tuple[onnx.NodeProto, ...]
    failures: tuple[str, ...]


def changes(
    reference: onnx.ModelProto, candidate: onnx.ModelProto, chained: Sequence[str]
) -> Changes:
    """What differs, if nodes named `<site>/cp/…` are chains in place of the nodes they replace;
    `chained` are the sites."""
    old = {_key(n): n for n in reference.graph.node}
    new = {_key(n): n for n in candidate.graph.node}
    same = {key for key, node in new.items() if key in old and is_equal(node, old[key])}
    fresh = [n for key, n in new.items() if key not in same]
    written = index.made_names(fresh)
    gone = [n for key, n in old.items() if key not in same]
    replaced = [n for n in gone if written & set(n.output)]
    strange = [n for n in fresh if not is_chain_node(n, chained)]
    lost = _Lost(reference, candidate, replaced)
    failures = [
        *(_difference(node, old.get(_key(node))) for node in strange),
        *(f"node {named(n)} is missing" for n in gone if n not in replaced and not lost.may(n)),
        *_order([k for k in old if k in same], [k for k in new if k in same]),
        *_tensors(reference, candidate, fresh, lost),
        *_surroundings(reference, candidate, lost),
    ]
    kept = [n for n in fresh if n not in strange]
    return Changes(tuple(replaced), tuple(kept), tuple(failures))


def is_chain_node(node: onnx.NodeProto, chained: Iterable[str]) -> bool:
    """Whether a node is named as one of a site's chain."""
    return chain_names.is_of(node.name, chained)


def named(node: onnx.NodeProto) -> str:
    """A node as messages name it."""
    return repr(node.name) if node.name else f"{operator(node)}:{next(iter(node.output), '')}"


def is_equal(one: Message, two: Message) -> bool:
    """Whether two messages hold the same, wherever the bytes of their tensors lie."""
    if isinstance(one, onnx.TensorProto):  # may be over 2 GiB, which cannot be serialized
        left, right = ({d.name: v for d, v in m.ListFields()} for m in (one, two))
        return all(
            field in STORAGE or left.get(field) == right.get(field) for field in {*left, *right}
        )
    if _bytes(one) == _bytes(two):
        return True
    return isinstance(one, onnx.NodeProto) and _bytes(_inside(one)) == _bytes(_inside(two))


def _bytes(message: Message) -> bytes:
    found: bytes = message.SerializeToString(deterministic=True)
    return found


def _inside(node: Message) -> onnx.NodeProto:
    """A node whose tensors do not say where they were read from."""
    made = onnx.NodeProto()
    made.CopyFrom(node)
    _forget_storage(made.attribute)
    return made


def _forget_storage(attributes: Iterable[onnx.AttributeProto]) -> None:
    for attribute in attributes:
        graphs = [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
        tensors = [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]
        for graph in graphs:
            tensors += graph.initializer
            for node in graph.node:
                _forget_storage(node.attribute)
        for tensor in tensors:
            for field in STORAGE:
                tensor.ClearField(field)


def _key(node: onnx.NodeProto) -> tuple[str, ...]:
    return tuple(node.output)


def _difference(node: onnx.NodeProto, old: onnx.NodeProto | None) -> str:
    if old is None:
        return f"node {named(node)} is neither the reference's nor part of a chain"
    if operator(node) != operator(old):
        return f"node {named(old)} is a {operator(node)}, not a {operator(old)}"
    if list(node.input) != list(old.input):
        now, before = (", ".join(n.input) for n in (node, old))
        return f"node {named(old)} reads {now} instead of {before}"
    ours, theirs = ({a.name: a for a in n.attribute} for n in (node, old))
    names = sorted(
        n
        for n in {*ours, *theirs}
        if n not in ours or n not in theirs or _bytes(ours[n]) != _bytes(theirs[n])
    )
    return f"node {named(old)} has another {', '.join(names) or 'name or note'}"


def _order(old: Sequence[object], new: Sequence[object]) -> list[str]:
    return [] if old == new else ["the nodes that were not replaced come in another order"]


class _Lost:
    """What may be missing: what only replaced nodes read, and what gave it to them."""

    def __init__(
        self,
        reference: onnx.ModelProto,
        candidate: onnx.ModelProto,
        replaced: Sequence[onnx.NodeProto],
    ) -> None:
        makers = index.makers(reference.graph.node)
        self._constant = Constants(reference.graph).names
        self._still_read = index.read_names(candidate.graph)
        self._names: set[str] = set()
        waiting = [name for node in replaced for name in node.input]
        while waiting:
            name = waiting.pop()
            maker = makers.get(name)
            if name in self._still_read or name in self._names or not name:
                continue
            self._names.add(name)
            if maker is not None and self._constant.issuperset(maker.output):
                waiting += maker.input

    def name(self, name: str) -> bool:
        return name in self._names

    def may(self, node: onnx.NodeProto) -> bool:
        written = set(node.output)
        is_lost = not written.isdisjoint(self._names) and written.isdisjoint(self._still_read)
        return is_lost and self._constant.issuperset(written)


def _tensors(
    reference: onnx.ModelProto,
    candidate: onnx.ModelProto,
    fresh: Iterable[onnx.NodeProto],
    lost: _Lost,
) -> Iterable[str]:
    old, new = ({t.name: t for t in m.graph.initializer} for m in (reference, candidate))
    of_chains = {name for node in fresh for name in node.input}
    for name, tensor in old.items():
        if name not in new:
            if not lost.name(name):
                yield f"tensor {name!r} is missing"
        elif not is_equal(tensor, new[name]):
            yield f"tensor {name!r}{_readers(reference, name)} is not the reference's"
    for name in new:
        if name not in old and name not in of_chains:
            yield f"tensor {name!r} is neither the reference's nor a chain's"
    yield from _sparse(reference, candidate, lost)


def _sparse(reference: onnx.ModelProto, candidate: onnx.ModelProto, lost: _Lost) -> Iterable[str]:
    old, new = (
        {t.values.name: t for t in m.graph.sparse_initializer} for m in (reference, candidate)
    )
    for name in dict.fromkeys((*old, *new)):
        if name not in new and lost.name(name):
            continue
        if name not in old or name not in new or _bytes(old[name]) != _bytes(new[name]):
            yield f"sparse tensor {name!r} is not the reference's"


def _readers(model: onnx.ModelProto, name: str) -> str:
    found = [named(node) for node in model.graph.node if name in node.input]
    return f", read by {', '.join(found[:3])}{', …' * (len(found) > 3)}," if found else ""


def _surroundings(
    reference: onnx.ModelProto, candidate: onnx.ModelProto, lost: _Lost
) -> Iterable[str]:
    """What is around nodes and stored tensors: fields of the model and of its graph."""
    own = {t.name for t in candidate.graph.initializer}
    own -= {t.name for t in reference.graph.initializer}
    for what, old, new in (
        ("the graph's inputs", reference.graph.input, candidate.graph.input),
        ("the shapes that the graph notes", reference.graph.value_info, candidate.graph.value_info),
    ):
        before = [_bytes(v) for v in old if not lost.name(v.name)]
        if before != [_bytes(v) for v in new if v.name not in own]:
            yield f"{what} are not the reference's"
    yield from _outputs(reference.graph.output, candidate.graph.output)
    yield from _fields(
        reference.graph,
        candidate.graph,
        {"node", "initializer", "sparse_initializer", "input", "output", "value_info"},
    )
    yield from _fields(reference, candidate, {"graph", "metadata_props"})
    notes = [
        [_bytes(p) for p in model.metadata_props if not p.key.startswith(OURS)]
        for model in (reference, candidate)
    ]
    if notes[0] != notes[1]:
        yield "the model's metadata, but for onnxcp's own, are not the reference's"


def _outputs(
    old: Sequence[onnx.ValueInfoProto], new: Sequence[onnx.ValueInfoProto]
) -> Iterable[str]:
    if is_other_order([o.name for o in old], [o.name for o in new]):
        yield other_order([o.name for o in old], [o.name for o in new])
    elif [_bytes(o) for o in old] != [_bytes(o) for o in new]:
        yield "the graph's outputs are not the reference's"


def is_other_order(old: Sequence[str], new: Sequence[str]) -> bool:
    """Whether the same names come in another order."""
    return list(old) != list(new) and Counter(old) == Counter(new)


def other_order(old: Sequence[str], new: Sequence[str]) -> str:
    """What is said of outputs in another order."""
    return f"outputs come in another order: {', '.join(new)} instead of {', '.join(old)}"


def _fields(old: Message, new: Message, but: set[str]) -> Iterable[str]:
    left, right = ({d.name: v for d, v in m.ListFields()} for m in (old, new))
    for field in sorted({*left, *right} - but):
        if _content(left.get(field)) != _content(right.get(field)):
            yield f"{field} is not the reference's"


def _content(value: object) -> object:
    if isinstance(value, Message):
        return _bytes(value)
    if hasattr(value, "__iter__") and not isinstance(value, (str, bytes)):
        return [_content(item) for item in value]
    return value
