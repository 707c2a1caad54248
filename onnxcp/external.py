"""External data: the bytes of tensors that lie in a file beside the model.

Knows where such bytes must lie to be trusted, and how to write a model's tensors out; which
tensors and when is `files`' matter.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx

from onnxcp.errors import ModelError
from onnxcp.shapes import element_type

ALIGNMENT = 4096  # of external tensors: what memory mapping wants


def located(path: Path, tensor: onnx.TensorProto) -> Path:
    """The file a tensor's bytes lie in, once it is known to be there and long enough."""
    entries = {e.key: e.value for e in tensor.external_data}
    where = f"{path}: tensor {tensor.name!r}"
    folder = path.parent.resolve()
    file: Path = (folder / entries.get("location", "")).resolve()
    if not file.is_relative_to(folder) or file == folder:
        raise ModelError(
            f"{where}: external data {entries.get('location')!r} leaves the model's folder; "
            "move the data beside the model and save it again"
        )
    if not file.is_file():
        raise ModelError(
            f"{where}: external data {file.name!r} is missing; put it beside the model"
        )
    _refuse_misplaced(f"{where}: external data {file.name!r}", tensor, entries, file)
    return file


def _refuse_misplaced(
    where: str, tensor: onnx.TensorProto, entries: dict[str, str], file: Path
) -> None:
    """Raises ModelError if the place in a file is not as long as a tensor's elements."""
    size = file.stat().st_size
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", size - offset))
    except ValueError:
        offset = length = -1
    if min(offset, length) < 0:
        raise ModelError(f"{where}: its offset or length is no size; save the model again")
    needed = _bytes(tensor) or length
    if max(needed, length) > size - offset:
        raise ModelError(
            f"{where} is truncated: it has {size} bytes, {offset + max(needed, length)} are "
            "asked for; copy it again"
        )
    if length != needed:
        raise ModelError(
            f"{where}: {length} bytes where the shape needs {needed}; save the model again"
        )


def _bytes(tensor: onnx.TensorProto) -> int:
    """What a tensor's elements take; 0 for types that numpy does not have."""
    dtype = element_type(tensor.data_type)
    return math.prod(tensor.dims) * dtype.itemsize if dtype and dtype.kind in "fiubc" else 0


@contextlib.contextmanager
def detached(
    tensors: Iterable[onnx.TensorProto], names: frozenset[str], file: Path
) -> Iterator[None]:
    """Stream the named tensors' bytes to `file`; inside, they are references to it."""
    held: list[tuple[onnx.TensorProto, bytes]] = []
    try:
        with file.open("wb") as stream:
            for tensor in tensors:
                if tensor.name in names and tensor.HasField("raw_data"):
                    held.append((tensor, tensor.raw_data))
                    _refer(tensor, file.name, stream.tell() + -stream.tell() % ALIGNMENT)
                    stream.write(b"\0" * (-stream.tell() % ALIGNMENT))
                    stream.write(held[-1][1])
        yield
    finally:
        for tensor, raw in held:
            del tensor.external_data[:]
            tensor.ClearField("data_location")
            tensor.raw_data = raw


def _refer(tensor: onnx.TensorProto, location: str, offset: int) -> None:
    length = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
