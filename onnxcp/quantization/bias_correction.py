"""Bias correction: the mean output error from rounded weights, subtracted from the bias.

If weights are changed by dW, the mean of an output channel shifts by dW·E[patch], which a bias can
compensate. Patches are averaged over samples and output positions, padding included, so that the
shift is exact for the inputs of the float model.

Axes: T output channels, S input channels. Source: bias correction of Nagel et al. 2019,
arXiv:1906.04721, with means that are measured, not derived from BatchNormalization.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx

from onnxcp.arrays import Float64
from onnxcp.chain import Geometry
from onnxcp.graph import products
from onnxcp.graph.constants import Constants
from onnxcp.graph.operators import operator
from onnxcp.graph.parameters import Parameters
from onnxcp.graph.shapes import groups, padded

Patch = Float64[np.ndarray, "S *window"]
KINDS = ("Conv", *products.PRODUCTS)


def refusals(graph: onnx.GraphProto, names: Iterable[str]) -> dict[str, str]:
    """Reasons why products with stored weights among `names` are not corrected, by node.

    Mostly a product has no bias, and another node would have to add one.
    """
    constants, wanted = Constants(graph), set(names)
    found = {
        node.name: _refusal(node, constants)
        for node in graph.node
        if node.name in wanted and _has_stored_weight(node, constants)
    }
    return {name: reason for name, reason in found.items() if reason}


def _has_stored_weight(node: onnx.NodeProto, constants: Constants) -> bool:
    if operator(node) not in KINDS:
        return False
    places = node.input[:2] if operator(node) in products.PRODUCTS else node.input[1:2]
    return any(name in constants.stored for name in places)


def _refusal(node: onnx.NodeProto, constants: Constants) -> str:
    unfit = products.unfit(node, constants)
    if unfit is not None:
        return " ".join(("no plain product:", *unfit)).strip()
    weight = constants.stored[node.input[1]]
    if any(a.name == "pads" and min(a.ints) < 0 for a in node.attribute):
        return "negative padding"
    if operator(node) == "MatMul":
        return "a MatMul has no bias"
    if not products.has_bias(node):
        return ""
    if node.input[2] not in constants.stored:
        return "its bias is computed"
    rows = weight.dims[1] if products.is_transposed(node) else weight.dims[0]
    bias = onnx.numpy_helper.to_array(constants.stored[node.input[2]])
    return "" if products.as_bias(bias, rows) is not None else "its bias differs from row to row"


@dataclass(slots=True, eq=False)
class Patches:
    """Mean patches of the products that can be corrected, by node; updated with each batch."""

    nodes: tuple[onnx.NodeProto, ...]
    windows: Mapping[str, tuple[int, ...]]
    _sums: dict[str, Patch] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: onnx.GraphProto, names: Iterable[str]) -> "Patches":
        """For those of the named nodes that have stored weights and can be corrected."""
        constants, wanted = Constants(graph), set(names)
        refused = refusals(graph, wanted)
        nodes = [
            node
            for node in graph.node
            if node.name in wanted - refused.keys() and _has_stored_weight(node, constants)
        ]
        dims = {n.name: tuple(constants.stored[n.input[1]].dims[2:]) for n in nodes}
        return cls(tuple(nodes), dims)

    def add(self, seen: Mapping[str, np.ndarray]) -> None:
        """Add the inputs of the products in one batch, by tensor."""
        for node in self.nodes:
            values = seen.get(node.input[0])
            if values is not None and values.size:
                samples = len(values) if operator(node) == "Conv" else values[..., 0].size
                patch = _patch(node, self.windows[node.name], values) * samples
                self._sums[node.name] = self._sums.get(node.name, 0.0) + patch
                self._counts[node.name] = self._counts.get(node.name, 0) + samples

    def means(self) -> dict[str, Patch]:
        return {name: total / self._counts[name] for name, total in self._sums.items()}


def _patch(node: onnx.NodeProto, window: tuple[int, ...], values: np.ndarray) -> Patch:
    """The mean patch of a batch, over samples and then over output positions."""
    if operator(node) != "Conv":
        return np.asarray(values.reshape(-1, values.shape[-1]).mean(0, dtype=np.float64))
    image = values.mean(0, dtype=np.float64)
    slides = padded(node, window, image.shape[1:])
    assert isinstance(slides, Geometry)  # the image's size is known
    count, sizes = len(window), slides.output(window, image.shape[1:])
    around = [(0, 0), *zip(slides.pads[:count], slides.pads[count:], strict=True)]
    image, found = np.pad(image, around), list[np.ndarray]()
    for place in itertools.product(*map(range, window)):
        starts = [at * d for at, d in zip(place, slides.dilations, strict=True)]
        ends = zip(starts, slides.strides, sizes, strict=True)
        read = [slice(start, start + step * size, step) for start, step, size in ends]
        found.append(image[(slice(None), *read)].mean(tuple(range(1, count + 1))))
    return np.stack(found, 1).reshape(-1, *window)


def correct(
    graph: onnx.GraphProto, rounded: Mapping[str, np.ndarray], patches: Mapping[str, Patch]
) -> None:
    """Subtract from biases, in place, the shift of the mean output by rounding weights.

    `rounded` are the rounded weights by node. A product without a bias gets one.
    """
    stored = Parameters(graph)
    for node in graph.node:
        if node.name not in rounded.keys() & patches.keys():
            continue
        weight = stored.find(node, 1)
        assert weight is not None
        change = products.as_kernel(node, rounded[node.name] - weight.astype(np.float64))
        shift = _shift(node, change, patches[node.name])
        bias = stored.find(node, 2)
        before = 0.0 if bias is None else products.as_bias(bias, len(shift))
        stored.write(node, 2, before - shift)


def _shift(node: onnx.NodeProto, change: np.ndarray, patch: Patch) -> np.ndarray:
    """The mean output [T] of a kernel [T, S/group, ...] for the mean patch."""
    group = groups(node)
    kernels = change.reshape(group, len(change) // group, -1)
    return np.asarray(np.einsum("gtk,gk->gt", kernels, patch.reshape(group, -1))).ravel()
