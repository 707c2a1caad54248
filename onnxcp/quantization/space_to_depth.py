"""Convolutions that read an image of few channels at every second pixel, in int8, as ones that
read its 2×2 blocks as channels.

On one to three channels ONNX Runtime 1.31 reaches a third of the multiply-adds a second that it
does on more. A SpaceToDepth before the image is rounded leaves four times the channels and a window
of half the sides, whose weights are the same and zeros. The integers that come out are the same.
With what SpaceToDepth takes the layer is 1.26 to 1.48 times as fast with up to three
channels, no faster with four, and slower with eight (`tools/bench/stems.py`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxcp.chain import Geometry
from onnxcp.graph import index
from onnxcp.graph.operators import operator
from onnxcp.graph.shapes import groups, padded
from onnxcp.graph.splice import drop_unread

BLOCK = 2  # pixels on a side
MOST = 3  # channels of an image, unless more are asked for
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
WINDOW = "kernel_shape"


@dataclass(frozen=True, slots=True)
class Folded:
    """Window and pads, before and behind, on one axis, of a convolution on blocks; `offset` are
    the zeros before its weights in pixels."""

    window: int
    offset: int
    before: int
    behind: int


def axis(window: int, before: int, behind: int, length: int) -> Folded | None:
    """A strided convolution's axis on blocks; None where there is no such thing: an image that
    does not fall into blocks, or that is cut."""
    if length % BLOCK or min(before, behind) < 0:
        return None
    made = (length + before + behind - window) // BLOCK + 1
    blocks = -(-before // BLOCK)
    offset = BLOCK * blocks - before
    sides = -(-(offset + window) // BLOCK)
    rest = made - length // BLOCK - blocks + sides - 1
    return Folded(sides, offset, blocks, rest) if rest >= 0 and made > 0 else None


def weights(kernel: np.ndarray, axes: Sequence[Folded], zeros: np.ndarray) -> np.ndarray:
    """A kernel [T, S, H, W] as one on blocks, [T, 4 S, H', W'], padded by `zeros` [T]: channels
    in the order of SpaceToDepth, rows and columns of a block before the image's channels."""
    total, channels, *window = kernel.shape
    sides = [a.window for a in axes]
    made = np.broadcast_to(
        zeros.reshape(-1, 1, 1, 1), (total, channels, *(BLOCK * side for side in sides))
    ).astype(kernel.dtype)
    (top, left), (height, width) = [a.offset for a in axes], window
    made[:, :, top : top + height, left : left + width] = kernel
    split = made.reshape(total, channels, sides[0], BLOCK, sides[1], BLOCK)
    blocks = split.transpose(0, 3, 5, 1, 2, 4).reshape(total, BLOCK**2 * channels, *sides)
    return np.ascontiguousarray(blocks)


def fold(model: onnx.ModelProto, *, most: int = MOST) -> None:
    """Have such convolutions of an int8 model, which is changed, read blocks: of images with at
    most so many channels."""
    graph = model.graph
    makers = index.makers(graph.node)
    stored = {t.name: t for t in graph.initializer}
    images = {i.name: _image(i) for i in graph.input}
    for node in list(graph.node):
        stem = _stem(node, makers, stored, images) if operator(node) == "Conv" else None
        if stem is not None and stored[stem.widening.input[0]].dims[1] <= most:
            _write(graph, stem, stored)
            _clear(model, (stem.restoring, stem.rounding, stem.widening))


@dataclass(frozen=True, slots=True, eq=False)
class _Stem:
    """A convolution, what rounds the image that it reads and restores it, and what makes its
    weight of stored integers."""

    node: onnx.NodeProto
    rounding: onnx.NodeProto
    restoring: onnx.NodeProto
    widening: onnx.NodeProto
    axes: tuple[Folded, Folded]


def _stem(
    node: onnx.NodeProto,
    makers: Mapping[str, onnx.NodeProto],
    stored: Mapping[str, onnx.TensorProto],
    images: Mapping[str, tuple[int, int] | None],
) -> _Stem | None:
    """A convolution as a stem; None where it is none."""
    restoring, widening = (makers.get(name) for name in node.input[:2])
    if restoring is None or widening is None or len(widening.input) < 3:
        return None
    rounding = makers.get(restoring.input[0])
    if rounding is None or (operator(restoring), operator(rounding), operator(widening)) != (
        DEQUANTIZE,
        QUANTIZE,
        DEQUANTIZE,
    ):
        return None
    image, weight = images.get(rounding.input[0]), stored.get(widening.input[0])
    if image is None or weight is None or len(weight.dims) != 4:
        return None
    window = tuple(weight.dims[2:])
    slides = padded(node, window, image)
    if not isinstance(slides, Geometry) or max(window) == 1 or groups(node) != 1:
        return None
    if slides.strides != (BLOCK, BLOCK) or slides.dilations != (1, 1):
        return None
    pads = zip(slides.pads[:2], slides.pads[2:], strict=True)
    rows, columns = (axis(w, *p, n) for w, p, n in zip(window, pads, image, strict=True))
    if rows is None or columns is None:
        return None
    return _Stem(node, rounding, restoring, widening, (rows, columns))


def _image(value: onnx.ValueInfoProto) -> tuple[int, int] | None:
    """Height and width of an input; None where they are not fixed."""
    dims = value.type.tensor_type.shape.dim
    if len(dims) != 4 or not all(d.dim_value for d in dims[2:]):
        return None
    return dims[2].dim_value, dims[3].dim_value


def _write(graph: onnx.GraphProto, stem: _Stem, stored: Mapping[str, onnx.TensorProto]) -> None:
    """Put a SpaceToDepth before the rounding, all under the convolution's name."""
    node, name, place = stem.node, stem.node.name, list(graph.node).index(stem.node)
    integers = onnx.numpy_helper.to_array(stored[stem.widening.input[0]])
    zeros = onnx.numpy_helper.to_array(stored[stem.widening.input[2]])
    zeros = np.broadcast_to(zeros.ravel(), len(integers))
    blocks = onnx.numpy_helper.from_array(
        weights(integers, stem.axes, zeros), f"{name}/blocks/stored"
    )
    graph.initializer.append(blocks)
    image = [stem.rounding.input[0]]
    spread = onnx.helper.make_node("SpaceToDepth", image, [f"{name}/blocks"], blocksize=BLOCK)
    spread.name = f"{name}/blocks"
    new = [
        spread,
        _like(stem.rounding, f"{name}/blocks", f"{name}/blocks/integers"),
        _like(stem.restoring, f"{name}/blocks/integers", f"{name}/blocks/image"),
        _like(stem.widening, blocks.name, f"{name}/blocks/weight"),
    ]
    node.input[0], node.input[1] = f"{name}/blocks/image", f"{name}/blocks/weight"
    kept = [a for a in node.attribute if a.name not in ("auto_pad", "pads", "strides", WINDOW)]
    sides = [a.window for a in stem.axes]
    pads = [*(a.before for a in stem.axes), *(a.behind for a in stem.axes)]
    kept += [onnx.helper.make_attribute(WINDOW, sides), onnx.helper.make_attribute("pads", pads)]
    kept.append(onnx.helper.make_attribute("strides", [1, 1]))
    made = [onnx.AttributeProto.FromString(a.SerializeToString()) for a in kept]
    del node.attribute[:]
    node.attribute.extend(made)
    for position, added in enumerate(new):
        graph.node.insert(place + position, added)


def _like(node: onnx.NodeProto, source: str, target: str) -> onnx.NodeProto:
    """A node that does the same to something else."""
    made = onnx.NodeProto()
    made.CopyFrom(node)
    made.name, made.input[0], made.output[0] = target, source, target
    return made


def _clear(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Remove those of some nodes, readers before what they read, that nothing reads any more."""
    for node in nodes:
        if not set(node.output) & index.read_names(model.graph):
            names = list(node.input)
            model.graph.node.remove(node)
            drop_unread(model, names)
