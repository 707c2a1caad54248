"""The size of a model's file and the number of values it stores."""

import math
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxcp.graph import io


@dataclass(frozen=True, slots=True)
class Stored:
    """The number of values in all tensors of a file, and its bytes with external data.

    A tensor that several nodes read counts once. `names` are the main graph's initializers.
    """

    parameters: int
    size: int  # bytes
    names: frozenset[str]


def stored(path: Path) -> Stored:
    """The contents of a model's file and its external data; the file must be readable."""
    proto = onnx.load(str(path), format="protobuf", load_external_data=False)
    tensors = list(io.tensors(proto))
    beside = sum(_outside(tensor) for tensor in tensors)
    return Stored(
        parameters=sum(math.prod(tensor.dims) for tensor in tensors),
        size=path.stat().st_size + beside,
        names=frozenset(tensor.name for tensor in proto.graph.initializer),
    )


def _outside(tensor: onnx.TensorProto) -> int:
    """Bytes of a tensor that lie outside the model's file."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return 0
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if "length" in entries:
        return int(entries["length"])
    itemsize: int = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return itemsize * int(math.prod(tensor.dims))
