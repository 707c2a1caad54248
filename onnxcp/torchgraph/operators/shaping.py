"""Operators that move elements and compute no new ones, and those that compute shapes.

Shapes and indices come as integer tensors on the CPU and are read as Python numbers.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from onnxcp.torchgraph.node import Node
from onnxcp.torchgraph.operators.window import pad as pad_by


def reshape(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    sizes = shape.tolist()
    if not node.get("allowzero", 0):
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


def flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(node.get("perm", None) or list(range(x.ndim))[::-1])


def _axes(node: Node, axes: Tensor | None) -> list[int] | None:
    """An attribute in older opsets, an input since."""
    given: list[int] | None = node.get("axes", None) if axes is None else axes.flatten().tolist()
    return given


def squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    chosen = _axes(node, axes)
    if chosen is None:
        return x.squeeze()
    dropped = {axis % x.ndim for axis in chosen}
    return x.reshape([size for axis, size in enumerate(x.shape) if axis not in dropped])


def unsqueeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    chosen = _axes(node, axes) or []
    rank = x.ndim + len(chosen)
    for axis in sorted(axis % rank for axis in chosen):
        x = x.unsqueeze(axis)
    return x


def expand(x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape.tolist())))


def tile(x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(repeats.tolist()) if x.ndim else x


def concat(node: Node, *inputs: Tensor) -> Tensor:
    return torch.cat(inputs, node.get("axis", 1))


def split(node: Node, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = node.get("axis", 0)
    given = node.get("split", None) if sizes is None else sizes.tolist()
    if given is None:  # equal parts, the last one perhaps smaller
        count, size = len(node.outputs), x.shape[axis]
        part = -(-size // count)
        given = [min(part, size - part * i) for i in range(count)]
    return tuple(torch.split(x, given, axis))


def slice_(
    node: Node,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    begin = node.get("starts", None) if starts is None else starts.tolist()
    end = node.get("ends", None) if ends is None else ends.tolist()
    step = [1] * len(begin) if steps is None else steps.tolist()
    chosen = _axes(node, axes) or range(len(begin))
    for axis, *parts in zip(chosen, begin, end, step, strict=True):
        x = _sliced(x, axis, range(*slice(*parts).indices(x.shape[axis])))
    return x


def _sliced(x: Tensor, axis: int, taken: range) -> Tensor:
    """Elements of one axis; torch slices forwards only."""
    if not taken:
        return x.narrow(axis, 0, 0)
    upward = taken if taken.step > 0 else taken[::-1]
    index = [slice(None)] * x.ndim
    index[axis] = slice(upward[0], upward[-1] + 1, upward.step)
    part = x[tuple(index)]
    return part if upward is taken else part.flip(axis)


def _counted(index: Tensor, size: int) -> Tensor:
    """Indices from the start, where negative ones count from the end."""
    return torch.where(index < 0, index + size, index).to(torch.int64)


def gather(node: Node, x: Tensor, index: Tensor) -> Tensor:
    axis = node.get("axis", 0) % x.ndim
    found = x.index_select(axis, _counted(index, x.shape[axis]).flatten())
    return found.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


def gather_elements(node: Node, x: Tensor, index: Tensor) -> Tensor:
    axis = node.get("axis", 0)
    return torch.gather(x, axis, _counted(index, x.shape[axis]))


def depth_to_space(node: Node, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = node.get("blocksize", 1)
    if node.get("mode", "DCR") == "DCR":
        blocks = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        blocks = x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(n, c // b**2, h * b, w * b)


def space_to_depth(node: Node, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = node.get("blocksize", 1)
    blocks = x.reshape(n, c, h // b, b, w // b, b)
    order = (0, 3, 5, 1, 2, 4) if node.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    blocks = blocks.permute(order)
    return blocks.reshape(n, c * b**2, h // b, w // b)


def pad(
    node: Node,
    x: Tensor,
    pads: Tensor | None = None,
    value: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    sizes = node.get("pads", None) if pads is None else pads.tolist()
    filler = node.get("value", 0.0) if value is None else value.item()
    chosen = range(x.ndim) if axes is None else [axis % x.ndim for axis in axes.tolist()]
    begins, ends = [0] * x.ndim, [0] * x.ndim
    for axis, begin, end in zip(chosen, sizes[: len(chosen)], sizes[len(chosen) :], strict=True):
        begins[axis], ends[axis] = begin, end
    mode = node.get("mode", "constant")
    if mode == "constant":
        return pad_by(x, begins, ends, filler)
    for axis in chosen:
        x = x.index_select(axis, _mirrored(mode, x, axis, begins[axis], ends[axis]))
    return x


def _mirrored(mode: str, x: Tensor, axis: int, begin: int, end: int) -> Tensor:
    """Where each element of a padded axis is taken from."""
    size = x.shape[axis]
    places = torch.arange(-begin, size + end, device=x.device)
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap":
        return places % size
    period = max(1, 2 * (size - 1))
    return size - 1 - (places % period - (size - 1)).abs()


def shape(node: Node, x: Tensor) -> Tensor:
    """On the CPU, wherever the data are."""
    end = node.get("end", None)
    return torch.tensor(list(x.shape)[node.get("start", 0) : end], dtype=torch.int64)


def size(x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64)


def arange(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    first, step = start.item(), delta.item()
    count = max(0, math.ceil((limit.item() - first) / step))
    return (torch.arange(count) * step + first).to(start.dtype)


def constant_of_shape(node: Node, sizes: Tensor) -> Tensor:
    value = node.get("value", None)
    value = torch.zeros(1) if value is None else value
    wanted: Sequence[int] = sizes.tolist()
    return value.reshape(()).expand(wanted).clone()
