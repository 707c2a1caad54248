"""Static int8 of a float32 model: QuantizeLinear and DequantizeLinear around what has int8
kernels, by ONNX Runtime's own quantizer.

BatchNormalization is folded first; every other node keeps its name, so that nodes, and stages of
chains as `SITE/cp/ROLE`, can be left in float by name. Chains are equalised then, which changes
nothing of what they compute in float. Ranges of activations come from samples (see `ranges`):
the quantizer's own calibration holds all activations of all samples, has no least squared error,
and uses every core. What rounding of weights shifts means by is taken from biases.

The result is a model with its weights inside, whatever lay outside before.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np
import onnx

from onnxcp.data.samples import Batching, Samples
from onnxcp.errors import DataError, ModelError, UsageError
from onnxcp.graph.input_specs import Feeds
from onnxcp.graph.operators import domain_of, normalized, operator
from onnxcp.graph.sites import node_names
from onnxcp.progress import Progress, silent
from onnxcp.quantization import bias_correction, equalize, ranges, space_to_depth
from onnxcp.quantization.bias_correction import Patch, Patches
from onnxcp.quantization.dequantize import dequantised
from onnxcp.quantization.float_nodes import shield
from onnxcp.quantization.fold import FUSED, folded
from onnxcp.quantization.precision import PRODUCTS, all_nodes, refuse_unfit
from onnxcp.quantization.qdq import OPERATORS, by_runtime
from onnxcp.quantization.ranges import Range
from onnxcp.quantization.scheme import Scheme, fastest
from onnxcp.runtime.providers import Target
from onnxcp.runtime.watch import Watch

FEWEST = 16  # calibration samples: a heuristic; ranges of fewer are chance


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A float model that is ready to become int8: folded, every node under a name of its own,
    with the ranges of the activations of the `nodes` that are to compute in int8, and the mean
    `patches` that correct the means of products. Weights may still change. `uncorrected` tells
    of the products whose means are left as they come, by node, why. `borders` are activations
    to be rounded to 8 bits whatever reads them."""

    folded: onnx.ModelProto
    ranges: Mapping[str, Range]
    nodes: tuple[str, ...]
    scheme: Scheme
    original: onnx.ModelProto
    where: str
    patches: Mapping[str, Patch] = field(default_factory=dict)
    uncorrected: Mapping[str, str] = field(default_factory=dict)
    borders: tuple[str, ...] = ()

    def quantized(self) -> onnx.ModelProto:
        """The int8 model. Raises ModelError if ONNX Runtime's quantizer fails."""
        made = self.corrected()._by_runtime()
        shield(made)
        return _finished(made, self.original)

    def deployed(self) -> onnx.ModelProto:
        """The int8 model to be deployed: convolutions of images use SpaceToDepth if it is faster.

        It computes the same integers. Raises what `quantized` does.
        """
        made = self.quantized()
        space_to_depth.fold(made)
        return made

    def _by_runtime(self) -> onnx.ModelProto:
        given = (self.folded, self.ranges, self.nodes, self.scheme, self.where)
        return by_runtime(*given, borders=self.borders)

    def corrected(self) -> "Prepared":
        """The same with biases corrected by `patches`. Raises what `quantized` does."""
        if not self.patches:
            return self
        made, ready = self._by_runtime(), onnx.ModelProto()
        ready.CopyFrom(self.folded)
        bias_correction.correct(ready.graph, _rounded(made), self.patches)
        return replace(self, folded=ready, patches={})


def prepare(
    proto: onnx.ModelProto,
    samples: Samples | None,
    batching: Batching,
    scheme: Scheme,
    *,
    where: str = "the model",
    raise_opset: bool = False,
    progress: Progress = silent,
) -> Prepared:
    """Fold a float32 model, which is not changed, equalise its chains, and find the ranges of
    its activations; the same input gives the same bytes. `where` names the model in messages.

    Raises:
        DataError: no samples, too few, constant ones, or activations that are not finite.
        ModelError: quantized already, not float32, an old opset without `raise_opset`, too
            large, or nothing in it has int8 kernels.
        UsageError: a glob that names no node.
    """
    refuse_unfit(proto, where, raise_opset=raise_opset)
    given = enough(samples, batching)
    ready = folded(proto, where)
    left = _left_in_float(proto, ready, scheme.floats, where)
    todo = [n for n in ready.graph.node if operator(n) in OPERATORS.split() and n.name not in left]
    if not any(operator(n) in PRODUCTS for n in todo):
        raise ModelError(
            f"{where}: no Conv, Gemm or MatMul of its main graph is left for int8; keep it in float"
        )
    names, runs = tuple(n.name for n in todo), _Runs(given, batching, progress)
    if scheme.equalise:
        _equalise(ready, names, runs)
    patches = bias_correction.Patches.of(ready.graph, names if scheme.correct_bias else ())
    found = _ranges(ready, todo, patches, scheme, runs)
    refused = bias_correction.refusals(ready.graph, names)
    return Prepared(ready, found, names, scheme, proto, where, patches.means(), refused)


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """The runs of calibration samples through a model."""

    samples: Samples
    batching: Batching
    progress: Progress

    def batches(self) -> Iterator[Feeds]:
        for start, feeds in enumerate(self.samples.batches(self.batching.size)):
            self.progress("calibrate int8", start * self.batching.size, len(self.samples))
            yield feeds

    def watched(
        self, ready: onnx.ModelProto, wanted: Sequence[str]
    ) -> Callable[[Feeds], Mapping[str, np.ndarray]]:
        """Run the model, and return those of the wanted tensors that are float32."""
        return _watched(ready, wanted, self.batching)


def _watched(
    ready: onnx.ModelProto, wanted: Sequence[str], batching: Batching
) -> Callable[[Feeds], Mapping[str, np.ndarray]]:
    watch = Watch.of(ready, wanted, Target.named("cpu", 1), run=batching.run)

    def run(feeds: Feeds) -> Mapping[str, np.ndarray]:
        seen = watch(feeds)
        return {n: seen[n] for n in wanted if seen[n].dtype == np.float32}

    return run


def quantized_for_time(
    model: bytes,
    feeds: Feeds,
    where: str,
    floats: Sequence[str] = (),
    *,
    is_part: bool = False,
) -> bytes:
    """A serialized int8 model with ranges from one feed, only to be timed; any opset is accepted.

    A part of a larger model has int8 inputs and outputs as it would there, even if `floats`, globs
    of nodes left in float, name all its nodes.
    """
    proto = onnx.ModelProto.FromString(model)
    ready, scheme = folded(proto, where), fastest()
    left = _left_in_float(proto, ready, floats, where)
    todo = [n for n in ready.graph.node if operator(n) in OPERATORS.split() and n.name not in left]
    borders = [v.name for v in (*ready.graph.input, *ready.graph.output)] if is_part else []
    wanted = list(dict.fromkeys((*_touched(ready, todo), *borders)))
    run = _watched(ready, wanted, Batching(1, fixed=False))
    found, names = ranges.extremes(run, [feeds]), tuple(n.name for n in todo)
    rounded = tuple(name for name in borders if name in found)
    made = Prepared(ready, found, names, scheme, proto, where, borders=rounded).deployed()
    return bytes(made.SerializeToString())


def _touched(ready: onnx.ModelProto, todo: Sequence[onnx.NodeProto]) -> list[str]:
    """The activations that the nodes read and write."""
    stored = {t.name for t in ready.graph.initializer}
    names = dict.fromkeys(n for node in todo for n in (*node.input, *node.output))
    return [name for name in names if name and name not in stored]


def enough(samples: Samples | None, batching: Batching) -> Samples:
    """The samples, if they are enough to determine ranges of activations.

    Raises:
        DataError: there are none, too few, or only constant ones.
    """
    if samples is None or not len(samples):
        raise DataError(
            "int8: no samples to take the ranges of activations from; give <<calibration=SPEC>> "
            "with real inputs, labels are not needed"
        )
    if len(samples) < FEWEST:
        raise DataError(
            f"int8: {len(samples)} calibration samples in {samples.source} are too few to know "
            f"ranges by; give {FEWEST} or more, by <<calibration>>"
        )
    first: Feeds | None = None
    for feeds in samples.batches(batching.size):
        first = first or feeds
        if any(a.size and (a != first[n].flat[0]).any() for n, a in feeds.items()):
            return samples
    shown = ", ".join(f"{n!r} is {a.flat[0]:g}" for n, a in (first or {}).items() if a.size)
    raise DataError(
        f"int8: the calibration samples in {samples.source} are constant ({shown} everywhere), "
        "and tell no ranges; give real inputs"
    )


def _left_in_float(
    proto: onnx.ModelProto, ready: onnx.ModelProto, patterns: Sequence[str], where: str
) -> set[str]:
    """Names of the nodes of `ready` that match the globs."""
    names = node_names(proto.graph)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(f"{where}: no node is named {pattern!r}; inspect shows the names")
    return {
        node.name
        for node in ready.graph.node
        if any(fnmatchcase(node.name.removesuffix(FUSED), pattern) for pattern in patterns)
    }


def _equalise(ready: onnx.ModelProto, names: Sequence[str], runs: _Runs) -> None:
    """Scale the chains of `ready` in place."""
    links = equalize.links(ready.graph, names)
    if links:
        run = runs.watched(ready, [link.tensor for link in links])
        equalize.equalise(ready.graph, links, equalize.watch(run, runs.batches(), links))


def _ranges(
    ready: onnx.ModelProto,
    todo: Sequence[onnx.NodeProto],
    patches: Patches,
    scheme: Scheme,
    runs: _Runs,
) -> dict[str, Range]:
    """Of all float32 activations that the nodes read and write; `patches` see them, too."""
    run = runs.watched(ready, _touched(ready, todo))

    def shown(feeds: Feeds) -> Mapping[str, np.ndarray]:
        seen = run(feeds)
        patches.add(seen)
        return seen

    found = ranges.extremes(shown, runs.batches())
    if scheme.method == "minmax":
        return found
    counts = ranges.histograms(run, runs.batches(), found)
    if scheme.method == "percentile":
        return {n: ranges.percentile(counts[n], f, scheme.percentile) for n, f in found.items()}
    return {n: ranges.least_error(counts[n], f) for n, f in found.items()}


def _rounded(made: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The values that the int8 weights of products represent, by node."""
    graph = dequantised(made).graph
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    products = [n for n in graph.node if operator(n) in PRODUCTS]
    return {n.name: stored[n.input[1]] for n in products if n.input[1] in stored}


def _finished(made: onnx.ModelProto, proto: onnx.ModelProto) -> onnx.ModelProto:
    """The quantized model with the original's metadata, without entries of the quantizer."""
    for text in ("producer_name", "producer_version", "doc_string", "domain"):
        setattr(made, text, getattr(proto, text))
    made.model_version = proto.model_version
    del made.metadata_props[:], made.graph.value_info[:]
    made.metadata_props.extend(proto.metadata_props)
    made.graph.name, made.graph.doc_string = proto.graph.name, proto.graph.doc_string
    used = {domain_of(n) for n in all_nodes(made)}
    for place in [i for i, o in enumerate(made.opset_import) if normalized(o.domain) not in used][
        ::-1
    ]:
        del made.opset_import[place]
    return made
