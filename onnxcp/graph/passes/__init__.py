"""Exact passes: changes of a graph that compute the same, and may run faster.

A pass is a function on an `Edit`, and a row of `pass_table.PASSES`. Whether it pays is measured, on
the target: no pass is good in itself.
"""

from collections.abc import Collection, Sequence

import onnx

from onnxcp.graph.metadata import OURS, listed, noted, seal
from onnxcp.graph.pass_table import PASSES
from onnxcp.graph.passes.edit import Edit
from onnxcp.graph.shapes import Shapes

NOTED = f"{OURS}passes"  # metadata key: the passes that a model was written with, in order


def applied(
    proto: onnx.ModelProto, names: Sequence[str], shapes: Shapes
) -> tuple[onnx.ModelProto, dict[str, int]]:
    """The model after some passes, in their order, and how often each of them did something;
    `proto` is not changed, and itself where none did."""
    counts = dict[str, int]()
    for name in names:
        edit = Edit(proto, shapes)
        count = PASSES[name].apply(edit)
        if count:
            proto, counts[name] = edit.finish(), count
    return proto, counts


def in_order(names: Collection[str]) -> tuple[str, ...]:
    """Passes in the order in which they are applied."""
    return tuple(name for name in PASSES if name in names)


def note(proto: onnx.ModelProto, names: Sequence[str]) -> None:
    """Note in a model's metadata, in place, the passes that it was written with."""
    entries = {entry.key: entry for entry in proto.metadata_props}
    before = listed(proto, NOTED)
    (entries.get(NOTED) or proto.metadata_props.add(key=NOTED)).value = noted((*before, *names))
    seal(proto)


def passes_of(proto: onnx.ModelProto) -> tuple[str, ...]:
    """The passes that a model was written with, as its metadata tell."""
    return listed(proto, NOTED)


def as_in(proto: onnx.ModelProto, candidate: onnx.ModelProto, shapes: Shapes) -> onnx.ModelProto:
    """A model with those passes applied that a candidate's metadata name and its own do not;
    names that are no pass are passed over."""
    before = passes_of(proto)
    names = [name for name in passes_of(candidate)[len(before) :] if name in PASSES]
    return applied(proto, names, shapes)[0] if names else proto
