"""ONNX Runtime's quantizer as a function of the float model, ranges and node names.

The quantizer changes its input, prints, and installs a handler in the root logger; this module
hides all of that.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxcp.errors import ModelError
from onnxcp.quantization.ranges import Range
from onnxcp.quantization.scheme import Scheme
from onnxcp.runtime.ort import runtime

# What the runtime's CPU provider computes in int8, or moves as it is.
OPERATORS = (
    "Add ArgMax AveragePool Clip Concat Conv Flatten Gather Gemm GlobalAveragePool LeakyRelu "
    "MatMul MaxPool Mul Pad Relu Reshape Resize Sigmoid Slice Softmax Split Squeeze Transpose "
    "Unsqueeze Where"
)


def by_runtime(
    ready: onnx.ModelProto,
    found: Mapping[str, Range],
    nodes: Sequence[str],
    scheme: Scheme,
    where: str,
    *,
    borders: Sequence[str] = (),
) -> onnx.ModelProto:
    """The model with the named nodes quantized; the model given is not changed.

    `borders` are activations that are rounded whatever reads them.

    Raises:
        ModelError: the quantizer fails.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(ready)
    _declare(copy, found)
    runtime()  # says what to install where it is missing
    with _silenced():
        from onnxruntime.quantization import QDQQuantizer, QuantType
        from onnxruntime.quantization.calibrate import TensorData

        types = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
        data = {
            name: TensorData(lowest=np.float32(low), highest=np.float32(high))
            for name, (low, high) in found.items()
        }
        quantizer: Any = QDQQuantizer(
            copy,
            scheme.per_channel,
            scheme.reduce_range,
            types[scheme.weights],
            types[scheme.activations],
            data,
            list(nodes),
            [n.name for n in copy.graph.node if n.name not in nodes],  # no nodes would be all
            OPERATORS.split(),
            {},
        )
        try:
            for name in borders:
                quantizer.quantize_activation_tensor(name)
            quantizer.quantize_model()
        except Exception as error:  # whatever it stumbles over
            raise ModelError(
                f"{where}: ONNX Runtime's quantizer fails: {error}; leave the node it names in "
                "float, or keep the model in float"
            ) from error
        quantizer.model.topological_sort()
    made: onnx.ModelProto = quantizer.model.model
    return made


def _declare(ready: onnx.ModelProto, found: Mapping[str, Range]) -> None:
    """Declare observed tensors as float32, since shape inference may not know their type."""
    graph = ready.graph
    known = {v.name for v in (*graph.value_info, *graph.input, *graph.output)}
    graph.value_info.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in found
        if name not in known
    )


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Within the block, drop what the quantizer logs to the root logger, and nothing else.

    Without a handler there, its first message would install one permanently.
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
