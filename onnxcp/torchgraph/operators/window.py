"""Sliding windows of convolution and pooling, with explicit padding per axis.

In ONNX, `pads` is one list: the begins of all axes, then their ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxcp.torchgraph.node import Node


@dataclass(frozen=True, slots=True)
class Window:
    """A window, per spatial axis.

    `begins` and `ends` are the padding. `extra` is how far the last window reaches beyond it,
    which only `ceil_mode` allows.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    extra: tuple[int, ...]

    @property
    def reaches(self) -> tuple[int, ...]:
        """The extent of the window per axis, dilation included."""
        return reaches(self.kernel, self.dilations)

    @property
    def is_centered(self) -> bool:
        """Whether torch's padding, which is the same at both ends, gives the same window."""
        return self.begins == self.ends and not any(self.extra) and min(self.begins, default=0) >= 0


def reaches(kernel: Sequence[int], dilations: Sequence[int]) -> tuple[int, ...]:
    """The extent of a kernel per axis, dilation included."""
    return tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))


def per_axis(node: Node, key: str, rank: int, default: int) -> tuple[int, ...]:
    """An attribute with one number per axis, or `rank` times the default."""
    return tuple(node.get(key, None) or [default] * rank)


def window(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> Window:
    """The window of a node over axes of these sizes."""
    rank = len(kernel)
    strides, dilations = per_axis(node, "strides", rank, 1), per_axis(node, "dilations", rank, 1)
    reach, auto = reaches(kernel, dilations), node.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        begins, ends = _same(auto, sizes, reach, strides)
    else:
        pads = [0] * (2 * rank) if auto == "VALID" else per_axis(node, "pads", 2 * rank, 0)
        begins, ends = tuple(pads[:rank]), tuple(pads[rank:])
    extra = (0,) * rank
    if node.get("ceil_mode", 0):
        each = zip(sizes, reach, strides, begins, ends, strict=True)
        extra = tuple(_beyond(*axis) for axis in each)
    return Window(tuple(kernel), strides, dilations, begins, ends, extra)


def _same(
    auto: str, sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The padding that gives ⌈size / stride⌉ positions."""
    totals = [
        max(0, (-(-size // stride) - 1) * stride + r - size)
        for size, r, stride in zip(sizes, reach, strides, strict=True)
    ]
    return halves(totals, upper=auto == "SAME_UPPER")


def halves(totals: Sequence[int], *, upper: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Total padding split into begins and ends; the larger half is the end if `upper`."""
    smaller = tuple(total // 2 for total in totals)
    larger = tuple(total - total // 2 for total in totals)
    return (smaller, larger) if upper else (larger, smaller)


def _beyond(size: int, reach: int, stride: int, begin: int, end: int) -> int:
    """How far the last window of `ceil_mode` reaches beyond the padding.

    A window that would start in the padding at the end is left out.
    """
    steps = -(-(size + begin + end - reach) // stride)
    if steps * stride >= size + begin:
        steps -= 1
    return max(0, steps * stride + reach - (size + begin + end))


def pad(x: Tensor, begins: Sequence[int], ends: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad the last axes; negative sizes crop."""
    if not any(begins) and not any(ends):
        return x
    pairs = [size for both in zip(begins, ends, strict=True) for size in both[::-1]]
    return torch.nn.functional.pad(x, pairs[::-1], value=value)
