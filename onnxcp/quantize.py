"""Static int8 of a float32 model: QuantizeLinear and DequantizeLinear around what has int8
kernels, by ONNX Runtime's own quantizer.

BatchNormalization is folded first, by ONNX Runtime's plain optimizations; every other node
keeps its name, so that nodes, and stages of chains as `SITE/cp/ROLE`, can be left in float by
name. Ranges of activations come from samples (see `ranges`): the quantizer's own calibration
holds all activations of all samples, has no least squared error, and uses every core.

The result is a model with its weights inside, whatever lay outside before.
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from onnxcp import ranges
from onnxcp.errors import DataError, ModelError, UsageError
from onnxcp.precision import OPSET, PRODUCTS, all_nodes, opset_of, refuse_unfit
from onnxcp.progress import Progress, silent
from onnxcp.providers import Target
from onnxcp.ranges import Range
from onnxcp.rewrite import with_outputs
from onnxcp.runtime import SILENT, runtime
from onnxcp.samples import Batching, Samples
from onnxcp.scheme import Scheme, fastest
from onnxcp.sessions import as_our_error, open_runner
from onnxcp.shield import shield
from onnxcp.sites import node_names
from onnxcp.tensors import Feeds

FEWEST = 16  # calibration samples: a heuristic; ranges of fewer are chance
IR = 7  # the first with opset 13
FUSED = "/MatMulAddFusion"  # what the runtime puts behind the name of a MatMul with its Add
# What the runtime's CPU provider computes in int8, or moves as it is.
OPERATORS = (
    "Add ArgMax AveragePool Clip Concat Conv Flatten Gather Gemm GlobalAveragePool LeakyRelu "
    "MatMul MaxPool Mul Pad Relu Reshape Resize Sigmoid Slice Softmax Split Squeeze Transpose "
    "Unsqueeze Where"
)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A float model that is ready to become int8: folded, every node under a name of its own,
    with the ranges of the activations of the `nodes` that are to compute in int8. Weights may
    still change. `borders` are activations to be rounded to 8 bits whatever reads them."""

    folded: onnx.ModelProto
    ranges: Mapping[str, Range]
    nodes: tuple[str, ...]
    scheme: Scheme
    original: onnx.ModelProto
    where: str
    borders: tuple[str, ...] = ()

    def quantized(self) -> onnx.ModelProto:
        """The int8 model. Raises ModelError where ONNX Runtime's quantizer fails."""
        ready = onnx.ModelProto()
        ready.CopyFrom(self.folded)
        _declare(ready, self.ranges)
        made = _by_runtime(ready, self)
        shield(made)
        return _finished(made, self.original)


def quantize(
    proto: onnx.ModelProto,
    samples: Samples | None,
    batching: Batching,
    scheme: Scheme,
    *,
    where: str = "the model",
    raise_opset: bool = False,
    threads: int = 1,
    progress: Progress = silent,
) -> onnx.ModelProto:
    """The int8 model of a float32 one, which is not changed; on one thread the same input gives
    the same bytes. `where` names the model in messages.

    Raises:
        DataError, ModelError, UsageError: as `prepare`.
    """
    prepared = prepare(
        proto,
        samples,
        batching,
        scheme,
        where=where,
        raise_opset=raise_opset,
        threads=threads,
        progress=progress,
    )
    return prepared.quantized()


def prepare(
    proto: onnx.ModelProto,
    samples: Samples | None,
    batching: Batching,
    scheme: Scheme,
    *,
    where: str = "the model",
    raise_opset: bool = False,
    threads: int = 1,
    progress: Progress = silent,
) -> Prepared:
    """Fold a float32 model and find the ranges of its activations.

    Raises:
        DataError: no samples, too few, or activations that are not finite.
        ModelError: quantized already, not float32, an old opset without `raise_opset`, too
            large, or nothing in it has int8 kernels.
        UsageError: a glob that names no node.
    """
    refuse_unfit(proto, where, raise_opset=raise_opset)
    given = enough(samples)
    ready = _folded(_named(_raised(proto, where)), where)
    left = _left_in_float(proto, ready, scheme.floats, where)
    todo = [n for n in ready.graph.node if n.op_type in OPERATORS.split() and n.name not in left]
    if not any(n.op_type in PRODUCTS for n in todo):
        raise ModelError(
            f"{where}: no Conv, Gemm or MatMul of its main graph is left for int8; keep it in float"
        )
    target = Target.named("cpu", threads)
    found = _ranges(ready, todo, given, batching, scheme, target, progress)
    return Prepared(ready, found, tuple(n.name for n in todo), scheme, proto, where)


def quantized_for_time(
    model: bytes,
    feeds: Feeds,
    where: str,
    floats: Sequence[str] = (),
    *,
    is_part: bool = False,
) -> bytes:
    """A serialized int8 model that takes as long as that of real samples, whatever opset it
    had: its ranges are of one feed. A part of a larger model stands between int8 borders as it
    will there, even where `floats`, globs of nodes left in float, name all of it."""
    proto = onnx.ModelProto.FromString(model)
    ready, scheme = _folded(_named(_raised(proto, where)), where), fastest()
    left = _left_in_float(proto, ready, floats, where)
    todo = [n for n in ready.graph.node if n.op_type in OPERATORS.split() and n.name not in left]
    borders = [v.name for v in (*ready.graph.input, *ready.graph.output)] if is_part else []
    wanted = list(dict.fromkeys((*_touched(ready, todo), *borders)))
    run = _watched(ready, wanted, Batching(1, fixed=False), Target.named("cpu", 1))
    found, names = ranges.extremes(run, [feeds]), tuple(n.name for n in todo)
    rounded = tuple(name for name in borders if name in found)
    made = Prepared(ready, found, names, scheme, proto, where, rounded).quantized()
    serialized: bytes = made.SerializeToString()
    return serialized


def _touched(ready: onnx.ModelProto, todo: Sequence[onnx.NodeProto]) -> list[str]:
    """Activations that the nodes read and write."""
    stored = {t.name for t in ready.graph.initializer}
    names = dict.fromkeys(n for node in todo for n in (*node.input, *node.output))
    return [name for name in names if name and name not in stored]


def enough(samples: Samples | None) -> Samples:
    """The samples, where there are enough of them.

    Raises:
        DataError: none, or too few.
    """
    if samples is None or not len(samples):
        raise DataError("int8: no calibration samples; give real inputs, labels are not needed")
    if len(samples) < FEWEST:
        raise DataError(
            f"int8: {len(samples)} calibration samples in {samples.source} are too few to know "
            f"ranges by; give {FEWEST} or more"
        )
    return samples


def _raised(proto: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """A copy at an opset that knows channels, whose initializers are no inputs: those could be
    fed, so nothing would be folded into them."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    if opset_of(proto) < OPSET:
        made = _converted(made, where)
    made.ir_version = max(made.ir_version, IR)
    stored = {t.name for t in made.graph.initializer}
    for place in [i for i, v in enumerate(made.graph.input) if v.name in stored][::-1]:
        del made.graph.input[place]
    return made


def _converted(proto: onnx.ModelProto, where: str) -> onnx.ModelProto:
    unknown = next((n for n in proto.graph.node if not onnx.defs.has(n.op_type, n.domain)), None)
    try:
        made: onnx.ModelProto = onnx.version_converter.convert_version(proto, OPSET)
    except Exception as error:  # its own type in some versions, RuntimeError in others
        cause = f"it does not know {unknown.op_type}" if unknown else " ".join(str(error).split())
        raise ModelError(
            f"{where}: ONNX can not raise its opset to {OPSET}: {cause}; export the model anew"
        ) from error
    return made


def _named(made: onnx.ModelProto) -> onnx.ModelProto:
    """Every node under a name of its own: the quantizer tells nodes apart by it."""
    for node, name in zip(made.graph.node, node_names(made.graph), strict=True):
        node.name = name
    return made


def _folded(made: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """The model after the runtime's plain optimizations, which fold BatchNormalization and
    constants and keep to the standard's operators."""
    ort = runtime()
    with TemporaryDirectory() as folder:
        options, path = ort.SessionOptions(), Path(folder) / "folded.onnx"
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.log_severity_level, options.intra_op_num_threads = SILENT, 1
        target = Target.named("cpu", 1)
        with as_our_error(f"loading {where}", target):
            serialized = made.SerializeToString()
            ort.InferenceSession(serialized, options, providers=[target.provider.ort_name])
        return _with_row_biases(onnx.load(str(path)))


def _with_row_biases(made: onnx.ModelProto) -> onnx.ModelProto:
    """Biases of Gemm as [N] where they are stored as [1, N], which the quantizer fails at."""
    readers = Counter(name for node in made.graph.node for name in node.input)
    single = {n.input[2] for n in made.graph.node if n.op_type == "Gemm" and len(n.input) > 2}
    for tensor in made.graph.initializer:
        is_row = len(tensor.dims) == 2 and tensor.dims[0] == 1
        if is_row and tensor.name in single and readers[tensor.name] == 1:
            del tensor.dims[0]
    return made


def _left_in_float(
    proto: onnx.ModelProto, ready: onnx.ModelProto, patterns: Sequence[str], where: str
) -> set[str]:
    """Names of the nodes of `ready` that the globs mean."""
    names = node_names(proto.graph)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(f"{where}: no node is named {pattern!r}; inspect shows the names")
    return {
        node.name
        for node in ready.graph.node
        if any(fnmatchcase(node.name.removesuffix(FUSED), pattern) for pattern in patterns)
    }


def _ranges(
    ready: onnx.ModelProto,
    todo: Sequence[onnx.NodeProto],
    samples: Samples,
    batching: Batching,
    scheme: Scheme,
    target: Target,
    progress: Progress,
) -> dict[str, Range]:
    """Of all float32 activations that the nodes read and write."""
    run = _watched(ready, _touched(ready, todo), batching, target)

    def batches() -> Iterator[Feeds]:
        for start, feeds in enumerate(samples.batches(batching.size)):
            progress("calibrate int8", start * batching.size, len(samples))
            yield feeds

    found = ranges.extremes(run, batches())
    if scheme.method == "minmax":
        return found
    counts = ranges.histograms(run, batches(), found)
    if scheme.method == "percentile":
        return {n: ranges.percentile(counts[n], f, scheme.percentile) for n, f in found.items()}
    return {n: ranges.least_error(counts[n], f) for n, f in found.items()}


def _watched(
    ready: onnx.ModelProto, wanted: Sequence[str], batching: Batching, target: Target
) -> Callable[[Feeds], Mapping[str, np.ndarray]]:
    """Runs the model and gives those of the wanted tensors that are float32."""
    fed = {i.name for i in ready.graph.input}
    inside = [name for name in wanted if name not in fed]
    runner = open_runner(with_outputs(ready, inside).SerializeToString(), target)

    def run(feeds: Feeds) -> Mapping[str, np.ndarray]:
        seen = {**feeds, **dict(zip(runner.outputs, batching.run(runner, feeds), strict=True))}
        return {n: seen[n] for n in wanted if seen[n].dtype == np.float32}

    return run


def _declare(ready: onnx.ModelProto, found: Mapping[str, Range]) -> None:
    """Say of what was seen to be float32 that it is: shape inference may not have known."""
    graph = ready.graph
    known = {v.name for v in (*graph.value_info, *graph.input, *graph.output)}
    graph.value_info.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in found
        if name not in known
    )


def _by_runtime(ready: onnx.ModelProto, asked: Prepared) -> onnx.ModelProto:
    """What ONNX Runtime's quantizer makes of the nodes that are asked for."""
    scheme = asked.scheme
    runtime()  # says what to install where it is missing
    with _silenced():
        from onnxruntime.quantization import QDQQuantizer, QuantType
        from onnxruntime.quantization.calibrate import TensorData

        types = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
        data = {
            name: TensorData(lowest=np.float32(low), highest=np.float32(high))
            for name, (low, high) in asked.ranges.items()
        }
        quantizer: Any = QDQQuantizer(
            ready,
            scheme.per_channel,
            scheme.reduce_range,
            types[scheme.weights],
            types[scheme.activations],
            data,
            list(asked.nodes),
            [n.name for n in ready.graph.node if n.name not in asked.nodes],  # no nodes: all
            OPERATORS.split(),
            {},
        )
        try:
            for name in asked.borders:
                quantizer.quantize_activation_tensor(name)
            quantizer.quantize_model()
        except Exception as error:  # whatever it stumbles over
            raise ModelError(
                f"{asked.where}: ONNX Runtime's quantizer fails: {error}; leave the node it names "
                "in float, or keep the model in float"
            ) from error
        quantizer.model.topological_sort()
    made: onnx.ModelProto = quantizer.model.model
    return made


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Drop what the quantizer writes to the root logger, and nothing else.

    Without a handler there its first message would install one for good.
    """
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    root.addFilter(_is_not_the_quantizers)
    try:
        yield
    finally:
        root.removeFilter(_is_not_the_quantizers)
        root.removeHandler(handler)


def _is_not_the_quantizers(record: logging.LogRecord) -> bool:
    return not {"onnxruntime", "quantization"} <= set(Path(record.pathname).parts)


def _finished(made: onnx.ModelProto, proto: onnx.ModelProto) -> onnx.ModelProto:
    """The quantized model with what the original says of itself, and no traces of tools."""
    for text in ("producer_name", "producer_version", "doc_string", "domain"):
        setattr(made, text, getattr(proto, text))
    made.model_version = proto.model_version
    del made.metadata_props[:], made.graph.value_info[:]
    made.metadata_props.extend(proto.metadata_props)
    made.graph.name, made.graph.doc_string = proto.graph.name, proto.graph.doc_string
    used = {n.domain for n in all_nodes(made)}
    for place in [i for i, o in enumerate(made.opset_import) if o.domain not in used][::-1]:
        del made.opset_import[place]
    return made
