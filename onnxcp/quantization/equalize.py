"""The free scales of chains, chosen so that int8 takes little from what they compute.

Channel r between two stages of a chain may be multiplied by any s_r ≠ 0 where the weights that
the next stage reads it with are divided by s_r: a sum of rank-one terms stays what it is. In 8
bits all channels of an activation share one step, so that one of small range keeps few levels.
Weights are rounded per output channel: what the first stage's rows are multiplied by costs
nothing, nor do the columns of a depthwise stage, whose outputs read one channel each. Before a
dense stage it is a trade between the noise of

    the activation,   step² / 12 · Σ_or (w_or / s_r)²
    the weights,      Σ_o step_o² / 12 · Σ_r s_r² E[a_r²],   step_o from max_r |w_or / s_r|.

Noise of weights is the same at every pixel, so that what follows averages it out less: it counts
`LASTING` times. The least sum is sought among s_r = range_r^(α-1) · max_o |w_or|^α: α = 0 makes
ranges equal, α = 1 columns. Signs are free, too: channels are turned to have their larger side
above zero, and `SIDES` are tried for the range's side below it.

Scales are any floats. Powers of two would keep the float model as it is to the last bit, but
leave ranges up to a factor of two apart: twice the noise, where ratios are random.

Axes: T output channels, S input channels of the stage behind the channels. Sources: cross-layer
equalization of Nagel et al. 2019, arXiv:1906.04721; the trade and the signs are ours.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxcp.arrays import Float64
from onnxcp.graph import products
from onnxcp.graph.chain_names import site_of
from onnxcp.graph.constants import Constants
from onnxcp.graph.index import makers, read_counts
from onnxcp.graph.input_specs import Feeds
from onnxcp.graph.operators import operator
from onnxcp.graph.parameters import Parameters
from onnxcp.graph.shapes import groups
from onnxcp.quantization.ranges import STEPS

STAGES = ("Conv", *products.PRODUCTS)
ALPHAS = np.linspace(0, 1, 11)
SIDES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)  # what lies below zero over what lies above it
LEAST = 1e-6  # of the widest channel's range: what is less counts as no channel
LASTING = 3.0  # a heuristic: of 1, 3 and 8 the best on ResNet-20 and -56, by outputs in float
LEVELS = 127  # of weights on each side of zero

Channels = Float64[np.ndarray, " S"]
Activations = Callable[[Feeds], Mapping[str, np.ndarray]]


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """Two neighbouring stages of one chain."""

    tensor: str
    first: onnx.NodeProto
    second: onnx.NodeProto


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The extremes of every channel, and the mean of its squares."""

    low: Channels
    high: Channels
    power: Channels


def links(graph: onnx.GraphProto, names: Iterable[str]) -> list[Link]:
    """Pairs of stages whose inner channels are free: named as stages of one site, at least one
    of them among `names`, and what the first one writes read by the second alone."""
    constants, read, wanted = Constants(graph), read_counts(graph), set(names)
    stages = [n for n in graph.node if _is_stage(n, constants)]
    writers, found = makers(stages), list[Link]()
    for second in stages:
        tensor = second.input[0]
        first = writers.get(tensor)
        if first is None or read[tensor] > 1 or site_of(first.name) != site_of(second.name):
            continue
        if {first.name, second.name} & wanted:
            found.append(Link(tensor, first, second))
    return found


def _is_stage(node: onnx.NodeProto, constants: Constants) -> bool:
    """Whether a node is named as a stage and adds no more than a stored bias."""
    if (
        operator(node) not in STAGES
        or not site_of(node.name)
        or node.input[1] not in constants.stored
    ):
        return False
    if products.unfit(node, constants) or len(constants.stored[node.input[1]].dims) < 2:
        return False
    return not products.has_bias(node) or node.input[2] in constants.stored


def watch(run: Activations, batches: Iterable[Feeds], found: Sequence[Link]) -> dict[str, Seen]:
    """What the inner channels of links hold, over all batches, by tensor."""
    axes = {link.tensor: _axis(link.second) for link in found}
    low, high = dict[str, np.ndarray](), dict[str, np.ndarray]()
    squares, counts = dict[str, np.ndarray](), dict.fromkeys(axes, 0)
    for feeds in batches:
        for name, values in run(feeds).items():
            rows = np.moveaxis(values, axes[name], 0).reshape(values.shape[axes[name]], -1)
            low[name] = np.minimum(low.get(name, 0.0), rows.min(1, initial=0.0))
            high[name] = np.maximum(high.get(name, 0.0), rows.max(1, initial=0.0))
            power = np.square(rows, dtype=np.float64).sum(1)
            squares[name] = squares.get(name, 0.0) + power
            counts[name] += rows.shape[1]
    return {
        name: Seen(low[name].astype(float), high[name].astype(float), squares[name] / max(1, count))
        for name, count in counts.items()
        if name in low
    }


def _axis(node: onnx.NodeProto) -> int:
    return 1 if operator(node) == "Conv" else -1


def equalise(graph: onnx.GraphProto, found: Sequence[Link], seen: Mapping[str, Seen]) -> None:
    """Scale the inner channels of links, in place: the graph computes the same to rounding."""
    stored = Parameters(graph)
    for link in reversed(found):  # what a stage writes is scaled before what it reads
        if link.tensor not in seen:
            continue
        first, second = (_kernel(n, stored) for n in (link.first, link.second))
        group = groups(link.second)
        scale = scales(seen[link.tensor], second, group)
        _write(link.second, stored, _divided(second, scale, group))
        _write(link.first, stored, first * _along_rows(scale, first))
        if products.has_bias(link.first):
            bias = stored.find(link.first, 2)
            assert bias is not None
            stored.write(link.first, 2, bias * scale)


def scales(seen: Seen, kernel: np.ndarray, group: int) -> Channels:
    """What to multiply every channel by, given what it holds and the kernel [T, S/group, ...]
    that reads it; around 1, of either sign."""
    turned = np.where(-seen.low > seen.high, -1.0, 1.0)
    low = np.where(turned > 0, seen.low, -seen.high)
    high = np.where(turned > 0, seen.high, -seen.low)
    columns = np.abs(_grouped(kernel, group)).max((1, 3)).ravel()
    is_live = (high > LEAST * high.max(initial=0.0)) & (columns > 0)
    if not is_live.any():
        return np.ones_like(high)
    tried = []
    for side in SIDES:
        width = _filled(np.maximum(high, -low / side), is_live)
        for alpha in ALPHAS:
            scale = width ** (alpha - 1) * _filled(columns, is_live) ** alpha
            scale /= np.exp(np.log(scale).mean())
            passing, lasting = noise(scale, low, high, seen.power, _grouped(kernel, group))
            tried.append((passing + LASTING * lasting, scale))
    return np.asarray(turned * min(tried, key=lambda pair: pair[0])[1])


def _filled(values: Channels, is_live: np.ndarray) -> Channels:
    """Channels that hold nothing are scaled as the others are in the middle."""
    return np.where(is_live, values, np.median(values[is_live]))


def noise(
    scale: Channels, low: Channels, high: Channels, power: Channels, kernel: np.ndarray
) -> tuple[float, float]:
    """Variance that rounding activations, and weights, to 8 bits adds to the outputs of a
    pixel, in all; the kernel is [group, T/group, S/group, window]."""
    groups, _, inputs, _ = kernel.shape
    scaled = kernel / scale.reshape(groups, 1, inputs, 1)
    step = ((scale * high).max() - (scale * low).min()) / STEPS
    steps = np.abs(scaled).max((2, 3)) / LEVELS
    energy = (scale**2 * power).reshape(groups, 1, inputs).sum(2) * kernel.shape[3]
    return float(step**2 * np.square(scaled).sum()) / 12, float((steps**2 * energy).sum()) / 12


def _grouped(kernel: np.ndarray, group: int) -> np.ndarray:
    """A kernel as [group, T/group, S/group, window]."""
    return kernel.reshape(group, len(kernel) // group, kernel.shape[1], -1)


def _divided(kernel: np.ndarray, scale: Channels, group: int) -> np.ndarray:
    grouped = _grouped(kernel, group)
    made: np.ndarray = grouped / scale.reshape(group, 1, -1, 1)
    return made.reshape(kernel.shape)


def _along_rows(scale: Channels, kernel: np.ndarray) -> np.ndarray:
    return scale.reshape(-1, *(1,) * (kernel.ndim - 1))


def _kernel(node: onnx.NodeProto, stored: Parameters) -> np.ndarray:
    values = stored.find(node, 1)
    assert values is not None
    return products.as_kernel(node, values).astype(np.float64)


def _write(node: onnx.NodeProto, stored: Parameters, kernel: np.ndarray) -> None:
    stored.write(node, 1, products.as_kernel(node, kernel))  # turns it round again
