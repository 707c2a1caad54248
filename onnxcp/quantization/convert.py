"""A model in the numbers asked for: as it is, in float16, or in int8."""

from collections.abc import Sequence

import onnx

from onnxcp.data.samples import Batching, Samples
from onnxcp.graph import io
from onnxcp.graph.input_specs import Feeds
from onnxcp.graph.provenance import left_in_float
from onnxcp.progress import Progress, silent
from onnxcp.quantization.float16 import halved
from onnxcp.quantization.precision import FLOAT16, INT8, refuse_without_kernels
from onnxcp.quantization.scheme import fastest
from onnxcp.quantization.static import Prepared, prepare, quantized_for_time
from onnxcp.runtime.providers import Target

RANGED = 128  # calibration samples, at most, that a run takes ranges of activations from


def converted(
    model: io.Model,
    precision: str,
    samples: Samples | None,
    batching: Batching,
    target: Target,
    *,
    raise_opset: bool = False,
    progress: Progress = silent,
) -> onnx.ModelProto:
    """The model in a precision, for a target; itself for "float32". int8 takes its ranges from
    `samples`, the types that are fastest on this machine, and leaves in float what the model's
    metadata say.

    Raises:
        UsageError: the target's provider gains nothing from the precision.
        ModelError: a model that can not become so, with the reason.
        DataError: no samples for int8, too few, or such that tell no ranges.
    """
    refuse_without_kernels(precision, target)
    if precision == FLOAT16:
        progress("convert to float16", 0, 1)
        return halved(model.proto, where=str(model.path))
    if precision != INT8:
        return model.proto
    given = (model, samples, batching)
    return prepared(*given, raise_opset=raise_opset, progress=progress).deployed()


def prepared(
    model: io.Model,
    samples: Samples | None,
    batching: Batching,
    *,
    raise_opset: bool = False,
    progress: Progress = silent,
) -> Prepared:
    """The model ready to become int8, on the CPU provider.

    Raises:
        ModelError, DataError: as `converted`.
    """
    return prepare(
        model.proto,
        samples,
        batching,
        fastest(left_in_float(model.proto)),
        where=str(model.path),
        raise_opset=raise_opset,
        progress=progress,
    )


def for_time(
    model: bytes,
    precision: str,
    feeds: Feeds,
    where: str,
    floats: Sequence[str] = (),
    *,
    is_part: bool = False,
) -> bytes:
    """A serialized float model in a precision, for its time alone: ranges are of one feed, and
    the opset may be any. In int8 `floats` are globs of nodes left in float; a part of a larger
    model reads and writes int8 as it will there."""
    if precision == INT8:
        return quantized_for_time(model, feeds, where, floats, is_part=is_part)
    if precision == FLOAT16:
        made = halved(onnx.ModelProto.FromString(model), where=where)
        return bytes(made.SerializeToString())
    return model
