"""The comparison of each chain with the layer it stands for, on the real inputs of the chain.

From end to end, rounding grows with every layer: without shortcuts, normalizations can amplify it
by 20 % and more per layer. If the outputs of two models differ by more than the rounding of one
layer, this comparison decides. Each chain and the dense layer in its place get the inputs that the
chain has in the rewritten model. The limit is that of a single layer, however many there are. The
rest of the two models is the same, byte for byte.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from onnxcp.graph import index
from onnxcp.graph.input_specs import Feeds
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import Runner, open_runner
from onnxcp.runtime.watch import Watch


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The nodes that compute one tensor in the dense model; `fed` are their inputs not stored."""

    output: str
    nodes: tuple[onnx.NodeProto, ...]
    stored: tuple[onnx.TensorProto, ...]
    fed: tuple[str, ...]


def differences(
    dense: Path, chained: Path, sources: Mapping[str, str], target: Target, feeds: Iterable[Feeds]
) -> dict[str, float]:
    """The relative L2 difference of each chain from its dense layer, by the tensor it writes.

    Infinite if only one of them is not finite. `sources` are the tensors that the layers read, by
    the tensors that they write.

    Raises:
        OnnxcpError: a model does not run.
    """
    parts = _parts(onnx.load(str(dense)).graph, sources)
    return of_parts(parts, onnx.load(str(chained)), target, feeds)


def of_parts(
    parts: Sequence[Part], rewritten: onnx.ModelProto, target: Target, feeds: Iterable[Feeds]
) -> dict[str, float]:
    """The relative L2 difference of a rewritten model from parts of the original, by output.

    The parts get the inputs that they have in the rewritten model. Infinite if only one side is
    not finite.

    Raises:
        OnnxcpError: a model does not run.
    """
    watched = [name for part in parts for name in (part.output, *part.fed)]
    sums = {part.output: np.zeros(2) for part in parts}
    watch, runners = Watch.of(rewritten, watched, target), dict[str, Runner]()
    for fed in feeds:
        seen = watch(fed)
        for part in parts:
            read = {name: np.asarray(seen[name]) for name in part.fed}
            if part.output not in runners:
                runners[part.output] = open_runner(_model(part, read, rewritten), target)
            (exact,) = runners[part.output](read)
            sums[part.output] += _squares(np.asarray(exact), np.asarray(seen[part.output]))
    return {name: _ratio(error, size) for name, (error, size) in sums.items()}


def _parts(graph: onnx.GraphProto, sources: Mapping[str, str]) -> list[Part]:
    makers = index.makers(graph.node)
    tensors = {t.name: t for t in graph.initializer}
    found = list[Part]()
    for output, source in sources.items():
        nodes, reading = list[onnx.NodeProto](), output
        while reading != source:
            nodes.append(makers[reading])
            reading = nodes[-1].input[0]
        made = index.made_names(nodes)
        read = dict.fromkeys(n for node in nodes for n in node.input if n and n not in made)
        stored = tuple(tensors[n] for n in read if n in tensors)
        fed = tuple(n for n in read if n not in tensors)
        found.append(Part(output, tuple(nodes[::-1]), stored, fed))
    return found


def _model(part: Part, read: Mapping[str, np.ndarray], whole: onnx.ModelProto) -> bytes:
    inputs = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(values.dtype), [None] * values.ndim
        )
        for name, values in read.items()
    ]
    outputs = [onnx.ValueInfoProto(name=part.output)]
    graph = onnx.helper.make_graph(part.nodes, "layer", inputs, outputs, part.stored)
    made = onnx.ModelProto(ir_version=max(whole.ir_version, 4), graph=graph)
    made.opset_import.extend(whole.opset_import)
    serialized: bytes = made.SerializeToString()
    return serialized


def _squares(exact: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Sums of squares of the error and of the exact values; both infinite or NaN is equal."""
    exact, given = exact.astype(np.float64), given.astype(np.float64)
    alike = ~np.isfinite(exact) & ~np.isfinite(given)
    exact, given = (np.where(alike, 0.0, values) for values in (exact, given))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array([np.square(given - exact).sum(), np.square(exact).sum()])


def _ratio(error: float, size: float) -> float:
    if not math.isfinite(error):
        return math.inf
    if size > 0:
        return math.sqrt(error / size)
    return 0.0 if error == 0 else math.inf


def beyond(found: Mapping[str, float], limit: float) -> Sequence[str]:
    """The tensors that differ by more than a limit."""
    return [name for name, error in found.items() if not error <= limit]
