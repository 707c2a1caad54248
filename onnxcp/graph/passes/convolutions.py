"""Arithmetic with stored numbers around convolutions, folded into their weights.

Behind a convolution scale and shift go into weight and bias. In front of one a scale goes into
the weight; a shift goes into the bias where nothing is padded, as padding is zero whatever is
added to the image. What cannot be folded becomes a depthwise 1×1 convolution, which stays in
the blocked layout of ONNX Runtime's CPU provider, where a Mul or Add by one number does not.

Sums are taken in float64 and rounded once. Results differ by rounding from those of the nodes.
"""

from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnxcp.graph.passes.affine import Affine, affine, after
from onnxcp.graph.passes.edit import Edit, Node, Pass, Upstream, attribute, is_a

FOLDABLE = (np.float32, np.float64)
BLOCK = 4  # depthwise convolutions run in the blocked layout where channels are a multiple
LAYOUT = (  # operators that keep the blocked layout, or join it, with an input of four axes
    *("Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Concat"),
    *("BatchNormalization", "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Clip", "HardSigmoid"),
    *("Add", "Sum", "Mul"),
)


@dataclass(frozen=True, slots=True, eq=False)
class _Conv:
    """A convolution with stored parameters, in float64; `weight` is [T, S / group, …]."""

    node: Node
    weight: np.ndarray
    bias: np.ndarray
    group: int
    dtype: np.dtype


def fold_behind(edit: Edit) -> int:
    """Fold what is behind convolutions into them; how many nodes are gone."""
    count = 0
    for node in list(edit.nodes):
        conv, behind = _conv(edit, node), list[Node]()
        if conv is None:
            continue
        total = Affine(node.output[0], np.ones(1), np.zeros(1))
        reader = edit.only_reader(node.output[0])
        while reader is not None:
            step = affine(edit, reader, len(conv.weight) if conv.weight.ndim == 4 else None)
            if step is None:
                break
            total, behind = after(total, step), [*behind, reader]
            reader = edit.only_reader(reader.output[0])
        if behind:
            made, target = _of_output(conv, total), behind[-1].output[0]
            count += len(behind) * _put(edit, made, [node, *behind], node.input[0], target)
    return count


def fold_before(edit: Edit) -> int:
    """Fold what is in front of convolutions into them; how many nodes are gone."""
    count = 0
    for node in list(edit.nodes):
        conv = _conv(edit, node)
        if conv is None:
            continue
        walk, total = Upstream(edit, node), None
        walk.take(node.input[0])
        channels = conv.weight.shape[1] * conv.group if conv.weight.ndim == 4 else None
        while walk.maker is not None and (step := affine(edit, walk.maker, channels)) is not None:
            joined = step if total is None else after(step, total)
            if joined.shift.any() and _is_padded(node):
                break
            total = joined
            walk.take(step.source)
        if total is not None:
            made, gone = _of_input(conv, total), len(walk.nodes) - 1
            count += gone * _put(edit, made, walk.nodes, walk.reading, node.output[0])
    return count


def as_depthwise(edit: Edit) -> int:
    """Put depthwise 1×1 convolutions in the place of rows of scales and shifts between nodes in
    the blocked layout; how many."""
    count = 0
    for node in list(edit.nodes):
        shape = edit.shapes.get(node.output[0], ())
        if len(shape) != 4 or shape[1] % BLOCK or edit.maker.get(node.output[0]) is not node:
            continue
        next_ = edit.only_reader(node.output[0])
        if next_ is not None and affine(edit, next_, shape[1]) is not None:
            continue  # the row goes on
        walk = Upstream(edit, node)
        total = Affine(walk.reading, np.ones(1), np.zeros(1))
        while walk.maker is not None and (step := affine(edit, walk.maker, shape[1])) is not None:
            total = after(step, total)
            walk.take(step.source)
        is_same = edit.shapes.get(walk.reading) == shape
        if walk.nodes and is_same and _is_between(edit, walk.reading, node):
            count += _depthwise(edit, walk.nodes, total, shape[1])
    return count


def _is_between(edit: Edit, source: str, last: Node) -> bool:
    """Whether a row stands between nodes that are in the blocked layout."""
    readers = edit.readers[last.output[0]]
    return is_a(edit.maker.get(source), *LAYOUT) and any(is_a(n, *LAYOUT) for n in readers)


def _depthwise(edit: Edit, nodes: list[Node], total: Affine, channels: int) -> int:
    dtype = _dtype(edit, nodes)
    if dtype not in FOLDABLE:
        return 0
    with np.errstate(over="ignore", under="ignore"):
        scale, shift = (
            np.broadcast_to(v, channels).astype(dtype) for v in (total.scale, total.shift)
        )
    if not _is_safe(scale, shift):
        return 0
    target, name = nodes[0].output[0], nodes[0].name or nodes[0].output[0]
    inputs = [total.source, edit.store(scale.reshape(channels, 1, 1, 1), f"{name}/scale")]
    if shift.any():
        inputs.append(edit.store(shift, f"{name}/shift"))
    made = onnx.helper.make_node(
        "Conv", inputs, [target], name, group=channels, kernel_shape=[1, 1]
    )
    edit.replace(nodes, [made])
    return 1


def _dtype(edit: Edit, nodes: list[Node]) -> np.dtype | None:
    """The type of the stored numbers that a row of nodes reads."""
    values = [edit.value(name) for node in nodes for name in node.input]
    kinds = {value.dtype for value in values if value is not None}
    return kinds.pop() if len(kinds) == 1 else None


def _conv(edit: Edit, node: Node) -> _Conv | None:
    """A convolution whose parameters are stored, in a type that sums are rounded little in."""
    if not is_a(node, "Conv") or edit.maker.get(node.output[0]) is not node:
        return None
    weight = edit.value(node.input[1])
    if weight is None or weight.dtype not in FOLDABLE or weight.ndim < 3:
        return None
    has_bias = len(node.input) > 2 and bool(node.input[2])
    bias = edit.value(node.input[2]) if has_bias else np.zeros(len(weight))
    if bias is None:
        return None
    group = int(attribute(node, "group", 1))
    wide = (weight.astype(np.float64), np.asarray(bias, np.float64))
    return _Conv(node, *wide, group, weight.dtype)


def _is_padded(node: Node) -> bool:
    mode = next((a.s for a in node.attribute if a.name == "auto_pad"), b"NOTSET")
    pads = next((list(a.ints) for a in node.attribute if a.name == "pads"), [])
    return any(pads) or mode not in (b"NOTSET", b"VALID", b"")


def _of_input(conv: _Conv, into: Affine) -> _Conv:
    """The convolution of scale · x + shift, of x."""
    weight, group, axes = conv.weight, conv.group, tuple(range(2, conv.weight.ndim))
    parts = weight.reshape(group, len(weight) // group, *weight.shape[1:])  # [G, T/G, S/G, …]
    channels = (group, weight.shape[1])
    scale, shift = (
        np.broadcast_to(v, group * weight.shape[1]).reshape(channels)
        for v in (into.scale, into.shift)
    )
    moved = np.einsum("gts,gs->gt", weight.sum(axis=axes).reshape(parts.shape[:3]), shift)
    scaled = parts * scale.reshape(group, 1, -1, *(1,) * len(axes))
    return replace(conv, weight=scaled.reshape(weight.shape), bias=conv.bias + moved.reshape(-1))


def _of_output(conv: _Conv, out: Affine) -> _Conv:
    """scale · y + shift of what a convolution gives, as one."""
    rows = np.broadcast_to(out.scale, len(conv.weight))
    weight = conv.weight * rows.reshape(-1, *(1,) * (conv.weight.ndim - 1))
    return replace(conv, weight=weight, bias=conv.bias * out.scale + out.shift)


def _put(edit: Edit, conv: _Conv, nodes: list[Node], source: str, target: str) -> bool:
    """Put a convolution in the place of others; False where its numbers would not be safe."""
    with np.errstate(over="ignore", under="ignore"):
        new = (conv.weight.astype(conv.dtype), conv.bias.astype(conv.dtype))
    if not _is_safe(*new):
        return False
    made, name = Node.FromString(conv.node.SerializeToString()), conv.node.name or target
    inputs = [source, edit.store(new[0], f"{name}/folded_weight")]
    if new[1].any() or len(conv.node.input) > 2:
        inputs.append(edit.store(new[1], f"{name}/folded_bias"))
    del made.input[:], made.output[:]
    made.input.extend(inputs)
    made.output.append(target)
    edit.replace(nodes, [made])
    return True


def _is_safe(*arrays: np.ndarray) -> bool:
    """Whether numbers are finite, and none is subnormal, which many processors are slow with."""
    for array in arrays:
        small = (array != 0) & (np.abs(array) < np.finfo(array.dtype).tiny)
        if small.any() or not np.isfinite(array).all():
            return False
    return True


BEHIND = Pass("scales and shifts behind convolutions, folded", fold_behind)
BEFORE = Pass("scales and shifts before convolutions, folded", fold_before)
DEPTHWISE = Pass("scales and shifts as depthwise convolutions", as_depthwise)
