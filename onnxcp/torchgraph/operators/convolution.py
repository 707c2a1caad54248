"""Convolutions over one to three axes, and matrix products.

Axes: x [N, channels, *positions], weight [out, in / group, *kernel].
"""

from torch import Tensor
from torch.nn import functional

from onnxcp.torchgraph.node import Node
from onnxcp.torchgraph.operators.window import halves, pad, per_axis, reaches, window

CONV = (functional.conv1d, functional.conv2d, functional.conv3d)
TRANSPOSED = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)


def conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Conv; asymmetric padding is applied before the convolution."""
    sliding = window(node, x.shape[2:], weight.shape[2:])
    padding = sliding.begins
    if not sliding.is_centered:
        x, padding = pad(x, sliding.begins, sliding.ends), (0,) * len(padding)
    function = CONV[len(padding) - 1]
    group = node.get("group", 1)
    return function(x, weight, bias, sliding.strides, padding, sliding.dilations, group)


def conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """ConvTranspose: the whole result without padding, cropped to what ONNX defines.

    Its weight is [in, out / group, *kernel].
    """
    rank = x.ndim - 2
    strides, dilations = per_axis(node, "strides", rank, 1), per_axis(node, "dilations", rank, 1)
    more = per_axis(node, "output_padding", rank, 0)
    begins, ends = _crops(node, x, weight)
    function, group = TRANSPOSED[rank - 1], node.get("group", 1)
    whole = function(x, weight, None, strides, 0, 0, group, dilations)
    y = pad(whole, [-b for b in begins], [m - e for m, e in zip(more, ends, strict=True)])
    return y if bias is None else y + bias.reshape(-1, *[1] * rank)


def _crops(node: Node, x: Tensor, weight: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How much a ConvTranspose crops at begins and ends: as stated, or from the output's shape.

    Ends are negative if the output is larger than the whole result.
    """
    rank, auto = x.ndim - 2, node.get("auto_pad", "NOTSET")
    strides, more = per_axis(node, "strides", rank, 1), per_axis(node, "output_padding", rank, 0)
    sizes = node.get("output_shape", None)
    if sizes is None and auto in ("NOTSET", "VALID"):
        pads = per_axis(node, "pads", 2 * rank, 0) if auto == "NOTSET" else (0,) * (2 * rank)
        return pads[:rank], pads[rank:]
    reach = reaches(weight.shape[2:], per_axis(node, "dilations", rank, 1))
    each = zip(x.shape[2:], strides, more, reach, strict=True)
    whole = [s * (n - 1) + m + r for n, s, m, r in each]
    if sizes is None:  # in ONNX Runtime at most the whole result
        scaled = (n * s for n, s in zip(x.shape[2:], strides, strict=True))
        sizes = [min(both) for both in zip(scaled, whole, strict=True)]
    totals = [w - size for w, size in zip(whole, sizes[-rank:], strict=True)]
    begins, _ = halves([max(0, total) for total in totals], upper=auto == "SAME_UPPER")
    return begins, tuple(total - b for total, b in zip(totals, begins, strict=True))


def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """alpha·a·b + beta·c, with a and b transposed as the attributes say."""
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    y = (a.T if node.get("transA", 0) else a) @ (b.T if node.get("transB", 0) else b)
    y = y if alpha == 1 else y * alpha
    if c is None:
        return y
    return y + (c if beta == 1 else c * beta)
