"""A model in the numbers asked for: as it is, in float16, or in int8."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import onnx

from onnxcp import files
from onnxcp.half import halved
from onnxcp.precision import FLOAT16, INT8, refuse_without_kernels
from onnxcp.progress import Progress, silent
from onnxcp.provenance import left_in_float
from onnxcp.providers import Target
from onnxcp.quantize import Prepared, prepare, quantized_for_time
from onnxcp.samples import Batching, Samples
from onnxcp.scheme import fastest
from onnxcp.tensors import Feeds

CODE = (
    "quantize",
    "quantizer",
    "folding",
    "parameters",
    "equalise",
    "correction",
    "ranges",
    "scheme",
    "mixing",
    "shield",
    "stems",
    "half",
    "narrowing",
)
RANGED = 128  # calibration samples, at most, that a run takes ranges of activations from


def converted(
    model: files.Model,
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
    model: files.Model,
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


@functools.cache
def version() -> str:
    """Of the code that converts, and of what it asks for here: other code, other models."""
    digest = hashlib.sha256(f"{fastest()}|{RANGED}".encode())
    for name in CODE:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()
