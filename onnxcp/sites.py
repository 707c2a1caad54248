"""The nodes a form could replace, and why the others were left.

Reads a model and changes nothing. Every convolution of a model comes out as a `Site` or as
a `Skip` with its reason, those inside If and Loop bodies and local functions included; so
does every product with a stored matrix in the main graph. Multiply-adds are those of one
sample.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxcp.conv import Geometry, Kernel, Sizes
from onnxcp.errors import ModelError
from onnxcp.shapes import Shapes, element_type, padded

FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
CONVOLUTIONS = ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv", "NhwcConv")
PRODUCTS = ("Gemm", "MatMul")
MADE_BY_US = "onnxcp.sites"  # metadata key: the sites replaced in an earlier run, one a line

LEFT_ALONE = {
    "chain": "part of a chain that an earlier run made",
    "nested": "inside {detail}: only nodes of the main graph are replaced",
    "operator": "{detail} is not a plain Conv",
    "product": "a matrix product; forms for these are not offered yet",
    "computed": "its weight is computed at run time ({detail}), not stored",
    "dtype": "its weight is {detail}; float16, float32 and float64 are handled",
    "dimensions": "a {detail} convolution; chains are made of 2-D ones",
    "depthwise": "depthwise already",
    "grouped": "grouped ({detail} groups); forms fit dense kernels",
    "pointwise": "a 1×1 kernel has no window to separate",
    "padding": "auto_pad {detail} depends on an input size that is not fixed",
    "empty": "its weight has no elements",
}


@dataclass(frozen=True, slots=True)
class Layer:
    """What a table shows of a node; None where the model does not say."""

    name: str
    op: str
    shape: tuple[int, ...] | None = None  # of the weight
    strides: tuple[int, ...] = ()
    group: int = 1
    macs: int | None = None
    parameters: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A dense 2-D convolution with a stored kernel.

    `index` is the node's place in the main graph; `image` the (height, width) it sees;
    `tensor` the name of its weight, `source` that of the tensor it reads.
    """

    layer: Layer
    index: int
    kernel: Kernel  # as stored, so in the model's dtype
    bias: np.ndarray | None  # None too where it is computed at run time
    geometry: Geometry
    image: Sizes | None
    batch: int
    tensor: str
    source: str = ""
    bias_computed: bool = False

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, S / group, *window), as stored."""
        return self.kernel.shape

    @property
    def group(self) -> int:
        return self.layer.group

    @property
    def part(self) -> tuple[int, ...]:
        """Shape of one group's kernel."""
        return (self.shape[0] // self.group, *self.shape[1:])


@dataclass(frozen=True, slots=True)
class Skip:
    """A node left alone; `code` is a row of `LEFT_ALONE`."""

    layer: Layer
    code: str
    detail: str = ""

    @property
    def reason(self) -> str:
        return LEFT_ALONE[self.code].format(detail=self.detail)


class Constants:
    """Stored tensors of a graph by the name a node reads: also Constant nodes, Identity."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.stored = {t.name: t for t in graph.initializer}
        self.makers = {output: n for n in graph.node for output in n.output}

    def find(self, name: str) -> onnx.TensorProto | None:
        """The tensor behind a name, or None if it is computed or fed."""
        while name not in self.stored:
            maker = self.makers.get(name)
            if maker is None or maker.op_type not in ("Identity", "Constant"):
                return None
            if maker.op_type == "Constant":
                return _value(maker)
            name = maker.input[0]
        tensor: onnx.TensorProto = self.stored[name]
        return tensor

    def origin(self, name: str) -> str:
        """What makes a tensor, in words."""
        maker = self.makers.get(name)
        return f"by {maker.op_type}" if maker is not None else "an input of the graph"


def _value(constant: onnx.NodeProto) -> onnx.TensorProto | None:
    for attribute in constant.attribute:
        if attribute.name == "value":
            tensor: onnx.TensorProto = attribute.t
            return tensor
    return None


def find(
    proto: onnx.ModelProto, shapes: Shapes, fixed: Shapes | None = None
) -> tuple[tuple[Site, ...], tuple[Skip, ...]]:
    """Sites in graph order, and everything left alone.

    `shapes` holds concrete tensor shapes by name, as far as they are known; `fixed` those
    that hold at every size the model takes, all of them by default. Padding is made explicit
    from these alone: what fits one size would be wrong at another.

    Raises:
        ModelError: a site's weight holds NaN or infinity, its window does not fit, or an
            attribute makes no sense.
    """
    constants, names = Constants(proto.graph), node_names(proto.graph)
    ours = replaced_before(proto)
    found: list[Site | Skip] = []
    for index, node in enumerate(proto.graph.node):
        if node.op_type in CONVOLUTIONS or _is_product(node, constants):
            layer = _layer(node, names[index], constants, shapes)
            image = _image(node, shapes if fixed is None else fixed)
            found.append(_judge(node, index, layer, constants, shapes, image, ours))
    found += [Skip(Layer(n.name or n.op_type, n.op_type), "nested", w) for n, w in _nested(proto)]
    sites = tuple(f for f in found if isinstance(f, Site))
    return sites, tuple(f for f in found if isinstance(f, Skip))


def node_names(graph: onnx.GraphProto) -> list[str]:
    """A unique name for every node: its own, or one made with its first output.

    Outputs are unique and outlive a rewrite, as places in the graph do not: a second run
    must not find the names of the first one's chains again.
    """
    often = {name for name, count in Counter(n.name for n in graph.node).items() if count > 1}
    return [
        n.name
        if n.name and n.name not in often
        else f"{n.name or n.op_type}:{next(iter(n.output), '')}"
        for n in graph.node
    ]


def replaced_before(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the sites that earlier runs replaced, as the model's metadata tells."""
    listed = next((p.value for p in proto.metadata_props if p.key == MADE_BY_US), "")
    return tuple(listed.splitlines())


def _judge(
    node: onnx.NodeProto,
    index: int,
    layer: Layer,
    constants: Constants,
    shapes: Shapes,
    fixed: Sizes | None,
    ours: Sequence[str],
) -> Site | Skip:
    stored = constants.find(node.input[1])
    reason = _left_alone(node, layer, stored, constants, ours)
    if reason is not None:
        return Skip(layer, *reason)
    assert stored is not None
    kernel = _checked(layer.name, onnx.numpy_helper.to_array(stored))
    seen, image = shapes.get(node.input[0]), _image(node, shapes)
    geometry = padded(node, (kernel.shape[2], kernel.shape[3]), fixed)
    if isinstance(geometry, str):
        return Skip(layer, "padding", geometry)
    _refuse_misfit(layer.name, geometry, kernel, image)
    bias = constants.find(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    values = None if bias is None else onnx.numpy_helper.to_array(bias)
    batch = seen[0] if seen else 1
    return Site(
        layer,
        index,
        kernel,
        values,
        geometry,
        image,
        batch,
        tensor=node.input[1],
        source=node.input[0],
        bias_computed=bias is None and len(node.input) > 2 and bool(node.input[2]),
    )


def _image(node: onnx.NodeProto, shapes: Shapes) -> Sizes | None:
    """(height, width) of what a node reads, where it is known."""
    seen = shapes.get(node.input[0], ())
    return (seen[2], seen[3]) if len(seen) == 4 else None


def _left_alone(
    node: onnx.NodeProto,
    layer: Layer,
    stored: onnx.TensorProto | None,
    constants: Constants,
    ours: Sequence[str],
) -> tuple[str, str] | None:
    if any(node.name.startswith(f"{site}/cp/") for site in ours):
        return "chain", ""
    if node.op_type in PRODUCTS:
        return "product", ""
    if node.op_type != "Conv" or node.domain not in ("", "ai.onnx"):
        return "operator", node.op_type
    if stored is None:
        return "computed", constants.origin(node.input[1])
    return _unfit_kernel(layer, stored)


def _unfit_kernel(layer: Layer, stored: onnx.TensorProto) -> tuple[str, str] | None:
    dims = tuple(stored.dims)
    dtype = element_type(stored.data_type)
    if dtype is None or dtype not in FLOATS:  # numpy takes None for float64
        return "dtype", "of an unknown type" if dtype is None else str(dtype)
    if 0 in dims:
        return "empty", ""
    if len(dims) != 4:
        return "dimensions", f"{len(dims) - 2}-D"
    if layer.group > 1:
        return ("depthwise", "") if dims[1] == 1 else ("grouped", str(layer.group))
    return ("pointwise", "") if dims[2:] == (1, 1) else None


def _checked(name: str, kernel: np.ndarray) -> Kernel:
    wrong = int(kernel.size - np.isfinite(kernel).sum())
    if wrong:
        raise ModelError(
            f"{name}: {wrong} of {kernel.size} weights are NaN or infinite; "
            "the model can not work: export it again"
        )
    return kernel


def _refuse_misfit(name: str, geometry: Geometry, kernel: Kernel, image: Sizes | None) -> None:
    window = (kernel.shape[2], kernel.shape[3])
    if image is not None and min(geometry.output(window, image)) < 1:
        raise ModelError(
            f"{name}: a {window[0]}×{window[1]} window does not fit its {image[0]}×{image[1]} "
            "input; pass --input-shape with the real size"
        )


def _is_product(node: onnx.NodeProto, constants: Constants) -> bool:
    return node.op_type in PRODUCTS and constants.find(node.input[1]) is not None


def _layer(node: onnx.NodeProto, name: str, constants: Constants, shapes: Shapes) -> Layer:
    attributes = {a.name: a for a in node.attribute}
    stored = constants.find(node.input[1]) if len(node.input) > 1 else None
    shape = tuple(stored.dims) if stored is not None else shapes.get(node.input[1])
    strides = tuple(attributes["strides"].ints) if "strides" in attributes else ()
    group = attributes["group"].i if "group" in attributes else 1
    size = int(np.prod(shape)) if shape else 0
    result = shapes.get(node.output[0])
    macs = _macs(node.op_type, size, shape, result) if size and result else None
    return Layer(name, node.op_type, shape, strides, group, macs, size)


def _macs(op: str, size: int, shape: tuple[int, ...] | None, result: Sequence[int]) -> int:
    """Of one sample: every weight once per output position."""
    if op in PRODUCTS:
        return size * int(np.prod(result[1:-1]))
    if op == "ConvTranspose" and shape:
        return size * int(np.prod(result[2:])) // max(1, int(np.prod(shape[2:])))
    return size * int(np.prod(result[2:]))


def _nested(proto: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, str]]:
    """Convolutions that are not in the main graph, with where they are."""
    for node in proto.graph.node:
        yield from _within(node, f"{node.op_type} {node.name!r}")
    for function in proto.functions:
        for node in function.node:
            if node.op_type in CONVOLUTIONS:
                yield node, f"the local function {function.name!r}"
            yield from _within(node, f"the local function {function.name!r}")


def _within(node: onnx.NodeProto, where: str) -> Iterator[tuple[onnx.NodeProto, str]]:
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                if inner.op_type in CONVOLUTIONS:
                    yield inner, where
                yield from _within(inner, where)
