"""Operators that move elements without computing new ones, and those that compute shapes.

Shapes and indices are integer tensors on the CPU, and are read as Python numbers.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from onnxcp.torchgraph.node import Node
from onnxcp.torchgraph.operators.window import pad as pad_by


def reshape(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    """x in another shape; a size of 0 keeps that axis, unless `allowzero`."""
    sizes = shape.tolist()
    if not node.get("allowzero", 0):
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


def flatten(node: Node, x: Tensor) -> Tensor:
    """x as a matrix: the axes before `axis`, and those from it on."""
    axis = node.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def transpose(node: Node, x: Tensor) -> Tensor:
    """x with its axes in the order of `perm`, reversed by default."""
    return x.permute(node.get("perm", None) or list(range(x.ndim))[::-1])


def _axes(node: Node, axes: Tensor | None) -> list[int] | None:
    """The axes: an attribute in older opsets, then an input."""
    if axes is not None:
        return list(axes.flatten().tolist())
    stated: list[int] | None = node.get("axes", None)
    return stated


def squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """x without the given axes of size 1, or without all of them."""
    chosen = _axes(node, axes)
    if chosen is None:
        return x.squeeze()
    dropped = {axis % x.ndim for axis in chosen}
    return x.reshape([size for axis, size in enumerate(x.shape) if axis not in dropped])


def unsqueeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """x with new axes of size 1; `axes` number those of the result."""
    chosen = _axes(node, axes) or []
    rank = x.ndim + len(chosen)
    for axis in sorted(axis % rank for axis in chosen):
        x = x.unsqueeze(axis)
    return x


def expand(x: Tensor, shape: Tensor) -> Tensor:
    """x broadcast with a shape, in both directions."""
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape.tolist())))


def tile(x: Tensor, repeats: Tensor) -> Tensor:
    """x repeated along each axis."""
    return x.repeat(repeats.tolist()) if x.ndim else x


def concat(node: Node, *inputs: Tensor) -> Tensor:
    """The inputs joined along an axis."""
    return torch.cat(inputs, node.get("axis", 1))


def split(node: Node, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    """x split along an axis into the given sizes, or into equal parts, the last one smaller."""
    axis = node.get("axis", 0)
    parts = node.get("split", None) if sizes is None else sizes.tolist()
    if parts is None:
        count, size = len(node.outputs), x.shape[axis]
        part = -(-size // count)
        parts = [min(part, size - part * i) for i in range(count)]
    return tuple(torch.split(x, parts, axis))


def slice_(
    node: Node,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """A slice along each of the given axes; steps may be negative."""
    begin = node.get("starts", None) if starts is None else starts.tolist()
    end = node.get("ends", None) if ends is None else ends.tolist()
    step = [1] * len(begin) if steps is None else steps.tolist()
    chosen = _axes(node, axes) or range(len(begin))
    for axis, *parts in zip(chosen, begin, end, step, strict=True):
        x = _sliced(x, axis, range(*slice(*parts).indices(x.shape[axis])))
    return x


def _sliced(x: Tensor, axis: int, positions: range) -> Tensor:
    """A slice of one axis; torch itself only slices with positive steps."""
    if not positions:
        return x.narrow(axis, 0, 0)
    ascending = positions if positions.step > 0 else positions[::-1]
    index = [slice(None)] * x.ndim
    index[axis] = slice(ascending[0], ascending[-1] + 1, ascending.step)
    part = x[tuple(index)]
    return part if ascending is positions else part.flip(axis)


def _from_start(index: Tensor, size: int) -> Tensor:
    """Indices from the start, where negative ones count from the end."""
    return torch.where(index < 0, index + size, index).to(torch.int64)


def gather(node: Node, x: Tensor, index: Tensor) -> Tensor:
    """Entries of one axis by index; the axes of `index` replace it."""
    axis = node.get("axis", 0) % x.ndim
    entries = x.index_select(axis, _from_start(index, x.shape[axis]).flatten())
    return entries.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


def gather_elements(node: Node, x: Tensor, index: Tensor) -> Tensor:
    """For each element of `index`, the element of x at that index along an axis."""
    axis = node.get("axis", 0)
    return torch.gather(x, axis, _from_start(index, x.shape[axis]))


def depth_to_space(node: Node, x: Tensor) -> Tensor:
    """Channels moved into blocks of positions, in the order DCR or CRD."""
    n, c, h, w = x.shape
    b = node.get("blocksize", 1)
    if node.get("mode", "DCR") == "DCR":
        blocks = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        blocks = x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(n, c // b**2, h * b, w * b)


def space_to_depth(node: Node, x: Tensor) -> Tensor:
    """Blocks of positions moved into channels, the inverse of `depth_to_space`."""
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
    """x padded by a constant, its edge, its mirror image or its other end; negative sizes crop."""
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
    """The source index of each element of a padded axis."""
    size = x.shape[axis]
    positions = torch.arange(-begin, size + end, device=x.device)
    if mode == "edge":
        return positions.clamp(0, size - 1)
    if mode == "wrap":
        return positions % size
    period = max(1, 2 * (size - 1))
    return size - 1 - (positions % period - (size - 1)).abs()


def shape(node: Node, x: Tensor) -> Tensor:
    """The shape from axis `start` to `end`, on the CPU for data on any device."""
    end = node.get("end", None)
    return torch.tensor(list(x.shape)[node.get("start", 0) : end], dtype=torch.int64)


def size(x: Tensor) -> Tensor:
    """The number of elements, on the CPU."""
    return torch.tensor(x.numel(), dtype=torch.int64)


def arange(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Numbers from start up to but without limit, delta apart, on the CPU."""
    first, step = start.item(), delta.item()
    count = max(0, math.ceil((limit.item() - first) / step))
    return (torch.arange(count) * step + first).to(start.dtype)


def constant_of_shape(node: Node, sizes: Tensor) -> Tensor:
    """A tensor of the given sizes, filled with the attribute `value`, 0 by default."""
    value = node.get("value", None)
    value = torch.zeros(1) if value is None else value
    shape: Sequence[int] = sizes.tolist()
    return value.reshape(()).expand(shape).clone()
