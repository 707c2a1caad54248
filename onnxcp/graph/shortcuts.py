"""Shortcuts that skip pixels and add channels of zeros, as the convolutions that they are.

Networks for small images join blocks of different widths by a strided Slice and a Pad (option A
of He et al. 2016, arXiv:1512.03385, sections 3.3 and 4.2). A CPU runtime keeps what its
convolutions pass on in blocks of channels, and leaves that layout for a Slice, and with it for
every sum behind it. A 1×1 convolution with a stride, whose weights are 0 and 1, stays in it and
makes the same numbers, unless one is infinite: 0 · ∞ is none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from onnxcp.graph import index
from onnxcp.graph.constants import Constants
from onnxcp.graph.metadata import noted, seal
from onnxcp.graph.operators import normalized, operator
from onnxcp.graph.sites import FLOATS, SHORTCUTS, node_names, shortcuts_before
from onnxcp.graph.splice import LISTED_INITIALIZERS, Pool, drop_unread, rewrite

PADS_BY_INPUTS = 11  # the opset since which a Pad reads its numbers; a Slice does since 10
TO_THE_END = 2**31 - 1  # what exporters write for it, at least
CHANNELS = 1  # the axis


@dataclass(frozen=True, slots=True)
class Shortcut:
    """Slices and a Pad in a row, by their places in the graph, from the tensor `source` to the
    tensor `target`, of a `dtype`: `strides` of the axes behind the channels; `before` and `after`
    are the channels added."""

    name: str
    slices: tuple[int, ...]
    pad: int
    source: str
    target: str
    dtype: np.dtype
    strides: tuple[int, ...]
    before: int
    after: int


def find(proto: onnx.ModelProto) -> tuple[Shortcut, ...]:
    """The shortcuts of a model's main graph that a convolution could take the place of."""
    opset = {normalized(o.domain): o.version for o in proto.opset_import}.get("", 0)
    pads = [place for place, node in enumerate(proto.graph.node) if operator(node) == "Pad"]
    if not pads or opset < PADS_BY_INPUTS or proto.ir_version <= LISTED_INITIALIZERS:
        return ()
    graph = _Graph(proto)
    found = (graph.shortcut(place) for place in pads)
    return tuple(shortcut for shortcut in found if shortcut is not None)


def rewritten(proto: onnx.ModelProto, widths: Mapping[str, int]) -> onnx.ModelProto:
    """The model with convolutions in place of some shortcuts, which its metadata name.

    `widths` are the channels that each of them reads, by its name.
    """
    chosen = [shortcut for shortcut in find(proto) if shortcut.name in widths]
    if not chosen:
        return proto
    made = rewrite(proto, {}, (), metadata={}).proto
    nodes, gone, unread = made.graph.node, set[int](), list[str]()
    pool = Pool({t.name for t in made.graph.initializer} | index.made_names(nodes))
    for shortcut in chosen:
        selection = _selection(shortcut, widths[shortcut.name])
        weight = onnx.numpy_helper.from_array(selection, f"{shortcut.name}/shortcut")
        unread += [n for place in (*shortcut.slices, shortcut.pad) for n in nodes[place].input]
        nodes[shortcut.pad].CopyFrom(_convolution(shortcut, pool.add(weight)))
        gone.update(shortcut.slices)
    for place in sorted(gone, reverse=True):
        del nodes[place]
    made.graph.initializer.extend(pool.tensors)
    drop_unread(made, unread)
    _note(made, [shortcut.name for shortcut in chosen])
    return made


def as_in(proto: onnx.ModelProto, candidate: onnx.ModelProto) -> onnx.ModelProto:
    """A model with those of its shortcuts rewritten that a candidate's metadata name."""
    named = shortcuts_before(candidate)
    if not named:
        return proto
    dims = {t.name: tuple(t.dims) for t in candidate.graph.initializer}
    made = {n.output[0]: n for n in candidate.graph.node if operator(n) == "Conv"}
    weights = {s.name: made[s.target].input[1] for s in find(proto) if s.target in made}
    known = {name: dims.get(weight, ()) for name, weight in weights.items() if name in named}
    return rewritten(proto, {name: shape[1] for name, shape in known.items() if len(shape) > 1})


class _Graph:
    """Nodes by what they make, tensors by how often they are read."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        graph = proto.graph
        self._nodes, self._names = graph.node, node_names(graph)
        self._constants, self._dtype = Constants(graph), _dtype(proto)
        self._makers = index.places(graph.node)
        self._readers = index.read_counts(graph)

    def shortcut(self, place: int) -> Shortcut | None:
        """The shortcut that ends in a Pad."""
        node = self._nodes[place]
        channels = self._added_channels(node)
        if channels is None or self._dtype is None:
            return None
        axes, before, after = channels
        slices, reading = list[int](), node.input[0]
        strides = dict.fromkeys(range(CHANNELS + 1, axes), 1)
        while (maker := self._makers.get(reading)) is not None and self._readers[reading] == 1:
            steps = self._steps(self._nodes[maker], axes)
            if steps is None:
                break
            strides = {axis: strides[axis] * steps.get(axis, 1) for axis in strides}
            slices.append(maker)
            reading = self._nodes[maker].input[0]
        if not slices:
            return None
        return Shortcut(
            self._names[place],
            tuple(slices),
            place,
            reading,
            node.output[0],
            self._dtype,
            tuple(strides.values()),
            before,
            after,
        )

    def _added_channels(self, node: onnx.NodeProto) -> tuple[int, int, int] | None:
        """The axes of what a Pad reads, and the channels of zeros before and behind; None for
        whatever pads otherwise."""
        if len(node.input) > 3:
            return None
        mode = next((a.s for a in node.attribute if a.name == "mode"), b"constant")
        pads = self._integers(node, 1)
        if mode != b"constant" or pads is None or len(pads) % 2 or len(pads) < 6:
            return None
        axes = len(pads) // 2
        wanted = {CHANNELS, axes + CHANNELS}
        others = any(pad for place, pad in enumerate(pads) if place not in wanted)
        before, after = pads[CHANNELS], pads[axes + CHANNELS]
        if others or min(before, after) < 0 or not self._is_zero(node):
            return None
        return axes, before, after

    def _is_zero(self, pad: onnx.NodeProto) -> bool:
        """Whether a Pad adds zeros, of the type of the model's convolutions."""
        if len(pad.input) < 3 or not pad.input[2]:
            return True
        stored = self._constants.find(pad.input[2])
        if stored is None:
            return False
        value = onnx.numpy_helper.to_array(stored)
        return value.dtype == self._dtype and not value.any()

    def _steps(self, node: onnx.NodeProto, axes: int) -> dict[int, int] | None:
        """The steps of a Slice that takes every n-th of whole axes behind the channels; None for
        whatever slices otherwise."""
        if operator(node) != "Slice" or len(node.input) < 5:
            return None
        starts, ends, over, steps = (self._integers(node, place) for place in range(1, 5))
        if starts is None or ends is None or over is None or steps is None:
            return None
        over = [axis % axes for axis in over]
        whole = not any(starts) and min(ends, default=0) >= TO_THE_END
        if not whole or min(over, default=0) <= CHANNELS or min(steps, default=0) < 1:
            return None
        return dict(zip(over, steps, strict=True))

    def _integers(self, node: onnx.NodeProto, place: int) -> list[int] | None:
        """Stored numbers that a node reads."""
        stored = self._constants.find(node.input[place]) if len(node.input) > place else None
        if stored is None or stored.data_type not in (
            onnx.TensorProto.INT32,
            onnx.TensorProto.INT64,
        ):
            return None
        return [int(number) for number in onnx.numpy_helper.to_array(stored).ravel()]


def _dtype(proto: onnx.ModelProto) -> np.dtype | None:
    """What a model computes in: the type of its convolutions' weights, where that is one."""
    constants = Constants(proto.graph)
    weights = [constants.find(n.input[1]) for n in proto.graph.node if operator(n) == "Conv"]
    kinds = {weight.data_type for weight in weights if weight is not None}
    if len(kinds) != 1:
        return None
    dtype: np.dtype = onnx.helper.tensor_dtype_to_np_dtype(kinds.pop())
    return dtype if dtype in FLOATS else None


def _selection(shortcut: Shortcut, channels: int) -> np.ndarray:
    """The kernel [T, S, 1, …] that copies S channels to where they stand among T."""
    window = (1,) * len(shortcut.strides)
    total = shortcut.before + channels + shortcut.after
    copied = np.eye(total, channels, -shortcut.before, shortcut.dtype)
    return copied.reshape(total, channels, *window)


def _convolution(shortcut: Shortcut, weight: str) -> onnx.NodeProto:
    sizes = len(shortcut.strides)
    made: onnx.NodeProto = onnx.helper.make_node(
        "Conv",
        [shortcut.source, weight],
        [shortcut.target],
        shortcut.name,
        kernel_shape=[1] * sizes,
        strides=shortcut.strides,
    )
    return made


def _note(made: onnx.ModelProto, names: Iterable[str]) -> None:
    entries = {p.key: p for p in made.metadata_props}
    listed = noted((*shortcuts_before(made), *names))
    entry = entries.get(SHORTCUTS) or made.metadata_props.add(key=SHORTCUTS)
    entry.value = listed
    seal(made)
