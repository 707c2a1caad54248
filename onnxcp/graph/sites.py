"""The nodes a form could replace, and why the others were left.

Reads a model and changes nothing. Every convolution of a model comes out as a `Site` or as
a `Skip` with its reason, those inside If and Loop bodies and local functions included; so
does every product with a stored matrix in the main graph. Multiply-adds are those of one
sample.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxcp.chain import Geometry, Kernel, Sizes
from onnxcp.errors import ModelError
from onnxcp.graph import chain_names, products
from onnxcp.graph.constants import Constants
from onnxcp.graph.layers import Layer, layer_of, weight_of
from onnxcp.graph.metadata import listed
from onnxcp.graph.nested import is_convolution, nested
from onnxcp.graph.operators import operator
from onnxcp.graph.shapes import Shapes, element_type, padded, refuse_misfit

FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
MADE_BY_US = "onnxcp.sites"  # metadata key: the sites replaced in earlier runs
SHORTCUTS = "onnxcp.shortcuts"  # likewise: the shortcuts that became convolutions

LARGEST = 2**28  # numbers of a weight: chains at all ranks are held to be timed

LEFT_ALONE = {
    "chain": "part of a chain that an earlier run made",
    "shortcut": "a shortcut that onnxcp wrote as a convolution",
    "nested": "inside {detail}: only nodes of the main graph are replaced",
    "operator": "{detail} is not a plain Conv, Gemm or MatMul",
    "first": "its stored matrix is the first factor, so what it multiplies are no rows",
    "scaled": "a Gemm with {detail}; plain ones are handled",
    "computed": "its weight is computed at run time ({detail}), not stored",
    "quantized": "already quantized: its weight is stored in integers, behind DequantizeLinear",
    "dtype": "its weight is {detail}; float16, float32 and float64 are handled",
    "dimensions": "a weight of {detail}: neither a kernel nor one matrix",
    "depthwise": "depthwise already",
    "padding": "auto_pad {detail} depends on an input size that is not fixed",
    "empty": "its weight has no elements",
    "not finite": "{detail} are NaN or infinite",
    "large": "its weight of {detail} numbers is too large",
}


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A convolution or matrix product with a stored kernel.

    `index` is the node's place in the main graph; `source` the tensor it reads, as
    [batch, S, *image] by a convolution and [batch, *image, S] by a product. `tensor` tells
    kernels apart: the name of the weight, and how it is read where that is not plain.
    """

    layer: Layer
    index: int
    kernel: Kernel  # in the model's dtype
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
        """(T, S / group, *window)."""
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


def find(
    proto: onnx.ModelProto, shapes: Shapes, fixed: Shapes | None = None
) -> tuple[tuple[Site, ...], tuple[Skip, ...]]:
    """Sites in graph order, and everything left alone.

    `shapes` holds concrete tensor shapes by name, as far as they are known; `fixed` those
    that hold at every size the model takes, all of them by default. Padding is made explicit
    from these alone: what fits one size would be wrong at another.

    Raises:
        ModelError: a site's window does not fit, or an attribute makes no sense.
    """
    names = node_names(proto.graph)
    known = _Known(
        Constants.of(proto),
        shapes,
        shapes if fixed is None else fixed,
        replaced_before(proto),
        shortcuts_before(proto),
    )
    found: list[Site | Skip] = []
    for index, node in enumerate(proto.graph.node):
        if is_layer(node, known.constants):
            layer = layer_of(node, names[index], known.constants, shapes)
            found.append(_judge(node, index, layer, known))
    found += [
        Skip(Layer(n.name or operator(n), operator(n)), "nested", w) for n, w in nested(proto)
    ]
    sites = tuple(f for f in found if isinstance(f, Site))
    return sites, tuple(f for f in found if isinstance(f, Skip))


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """What is known of a graph: `fixed` shapes hold at every size the model takes, `ours`
    are the sites of earlier runs, `shortcuts` what became a convolution in one."""

    constants: Constants
    shapes: Shapes
    fixed: Shapes
    ours: Sequence[str]
    shortcuts: Sequence[str]


def is_layer(node: onnx.NodeProto, constants: Constants) -> bool:
    """Whether a node comes out of `find`."""
    return is_convolution(node) or products.is_product(node, constants)


def node_names(graph: onnx.GraphProto) -> list[str]:
    """A unique name for every node: its own, or one made with its first output.

    Outputs are unique and outlive a rewrite, as places in the graph do not: a second run
    must not find the names of the first one's chains again.
    """
    often = {name for name, count in Counter(n.name for n in graph.node).items() if count > 1}
    return [
        n.name
        if n.name and n.name not in often
        else f"{n.name or operator(n)}:{next(iter(n.output), '')}"
        for n in graph.node
    ]


def replaced_before(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the sites that earlier runs replaced, as the model's metadata tells."""
    return listed(proto, MADE_BY_US)


def shortcuts_before(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the shortcuts that are convolutions now, as the model's metadata tells."""
    return listed(proto, SHORTCUTS)


def _judge(node: onnx.NodeProto, index: int, layer: Layer, known: _Known) -> Site | Skip:
    stored = known.constants.find(weight_of(node))
    reason = _left_alone(node, layer, stored, known)
    if reason is not None:
        return Skip(layer, *reason)
    assert stored is not None
    kernel = products.as_kernel(node, onnx.numpy_helper.to_array(stored))
    bias = _bias(node, len(kernel), known.constants)
    if (wrong := _not_finite(kernel, bias)) is not None:
        return Skip(layer, "not finite", wrong)
    _refuse_groups(layer, kernel)
    batch, image = _seen(node, kernel, known.shapes)
    geometry = _geometry(node, kernel, known)
    if isinstance(geometry, str):
        return Skip(layer, "padding", geometry)
    refuse_misfit(layer.name, geometry, kernel.shape[2:], image)
    return Site(
        layer,
        index,
        kernel,
        bias,
        geometry,
        image,
        batch,
        tensor=_identity(node, layer.group),
        source=node.input[0],
        bias_computed=bias is None and products.has_bias(node),
    )


def _geometry(node: onnx.NodeProto, kernel: Kernel, known: _Known) -> Geometry | str:
    if operator(node) in products.PRODUCTS:
        return Geometry(dimensions=0)
    return padded(node, kernel.shape[2:], _seen(node, kernel, known.fixed)[1])


def _seen(node: onnx.NodeProto, kernel: Kernel, shapes: Shapes) -> tuple[int, Sizes | None]:
    """Batch and image of what a node reads; 1 and None where they are not known."""
    seen = shapes.get(node.input[0])
    if seen is None:
        return 1, None
    if operator(node) in products.PRODUCTS:
        return (seen[0] if len(seen) > 1 else 1), seen[1:-1]
    return (seen[0], seen[2:]) if len(seen) == kernel.ndim else (1, None)


def _bias(node: onnx.NodeProto, outputs: int, constants: Constants) -> np.ndarray | None:
    stored = constants.find(node.input[2]) if products.has_bias(node) else None
    return None if stored is None else products.as_bias(onnx.numpy_helper.to_array(stored), outputs)


def _identity(node: onnx.NodeProto, group: int) -> str:
    """The weight's name; more where another node may read the same weight as another kernel."""
    turned = " transposed" if products.is_transposed(node) else ""
    return str(node.input[1]) + turned + (f" in {group} groups" if group > 1 else "")


def _left_alone(
    node: onnx.NodeProto, layer: Layer, stored: onnx.TensorProto | None, known: _Known
) -> tuple[str, str] | None:
    if chain_names.is_of(node.name, known.ours):
        return "chain", ""
    if layer.name in known.shortcuts:
        return "shortcut", ""
    if operator(node) not in ("Conv", *products.PRODUCTS):
        return "operator", operator(node)
    if (
        operator(node) in products.PRODUCTS
        and (reason := products.unfit(node, known.constants)) is not None
    ):
        return reason
    if stored is None:
        return _unstored(weight_of(node), known.constants)
    return _unfit_kernel(layer, stored)


def _unstored(weight: str, constants: Constants) -> tuple[str, str]:
    if constants.is_quantized(weight):
        return "quantized", ""
    return "computed", constants.origin(weight)


def _unfit_kernel(layer: Layer, stored: onnx.TensorProto) -> tuple[str, str] | None:
    dims = tuple(stored.dims)
    dtype = element_type(stored.data_type)
    if dtype is None or dtype not in FLOATS:  # numpy takes None for float64
        return "dtype", "of an unknown type" if dtype is None else str(dtype)
    if 0 in dims:
        return "empty", ""
    if math.prod(dims) > LARGEST:
        return "large", str(math.prod(dims))
    if (len(dims) != 2) if layer.op in products.PRODUCTS else (len(dims) < 3):
        return "dimensions", "×".join(map(str, dims)) or "one number"
    return ("depthwise", "") if layer.group > 1 and dims[1] == 1 else None


def _not_finite(kernel: Kernel, bias: np.ndarray | None) -> str | None:
    """What of a layer's stored numbers is NaN or infinite."""
    for values, what in ((kernel, "weights"), (bias, "numbers of its bias")):
        wrong = 0 if values is None else int(values.size - np.isfinite(values).sum())
        if values is not None and wrong:
            return f"{wrong} of {values.size} {what}"
    return None


def _refuse_groups(layer: Layer, kernel: Kernel) -> None:
    if layer.group < 1 or len(kernel) % layer.group:
        raise ModelError(
            f"{layer.name}: {len(kernel)} output channels do not fall into {layer.group} groups; "
            "export the model again"
        )
