"""Conversion of a model to the requested precision: unchanged, float16, or int8."""

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, eq=False)
class Deployer:
    """Converts float models to what is deployed: in a precision, on a target.

    int8 uses ranges from `samples` and the types that are fastest on this machine, and leaves
    nodes in float as a model's metadata state.
    """

    precision: str
    target: Target
    samples: Samples | None
    batching: Batching
    raise_opset: bool = False
    progress: Progress = silent

    def converted(self, model: io.Model) -> onnx.ModelProto:
        """The model in the precision; itself for "float32".

        Raises:
            UsageError: the target's provider has no benefit from the precision.
            ModelError: the model cannot be converted, with the reason.
            DataError: there are no samples for int8, too few, or only constant ones.
        """
        refuse_without_kernels(self.precision, self.target)
        if self.precision == FLOAT16:
            self.progress("convert to float16", 0, 1)
            return halved(model.proto, where=str(model.path))
        if self.precision != INT8:
            return model.proto
        return self.prepared(model).deployed()

    def prepared(self, model: io.Model) -> Prepared:
        """The model prepared for int8 on the CPU provider; its weights may still change.

        Raises:
            ModelError, DataError: as in `converted`.
        """
        return prepare(
            model.proto,
            self.samples,
            self.batching,
            fastest(left_in_float(model.proto)),
            where=str(model.path),
            raise_opset=self.raise_opset,
            progress=self.progress,
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
    """A serialized float model in a precision, only to be timed.

    Ranges come from one feed, and any opset is accepted. In int8, `floats` are globs of nodes left
    in float, and a part of a larger model reads and writes int8 as it would there.
    """
    if precision == INT8:
        return quantized_for_time(model, feeds, where, floats, is_part=is_part)
    if precision == FLOAT16:
        made = halved(onnx.ModelProto.FromString(model), where=where)
        return bytes(made.SerializeToString())
    return model
