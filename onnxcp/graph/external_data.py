"""External data: the bytes of tensors that lie in a file beside the model.

Knows where such bytes must lie to be trusted, how to read them, and how to write a model's
tensors out; which tensors and when is `files`' matter. A file is trusted in the model's folder,
or in the folder that the model's own file lies in where both are links, as model hubs lay them
out: links in one folder, the files side by side in another.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx

from onnxcp.errors import ModelError
from onnxcp.graph.shapes import element_type

ALIGNMENT = 4096  # of external tensors: what memory mapping wants


def located(path: Path, tensor: onnx.TensorProto) -> Path:
    """The file of a tensor's bytes, after checking that it exists and is long enough."""
    entries = {e.key: e.value for e in tensor.external_data}
    where = f"{path}: tensor {tensor.name!r}"
    folder, location = path.parent.resolve(), entries.get("location", "")
    try:
        file: Path = (folder / location).resolve()
    except (OSError, ValueError, RuntimeError):  # a loop of links, or a NUL in the name
        file = folder
    if not _is_trusted(path, location, file):
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


def _is_trusted(path: Path, location: str, file: Path) -> bool:
    """Whether a location of a model's data leads to a file that came with the model."""
    folder = path.parent.resolve()
    if file == folder:
        return False
    is_inside = not Path(location).is_absolute() and ".." not in Path(location).parts
    is_beside_blob = path.is_symlink() and is_inside and file.parent == path.resolve().parent
    return file.is_relative_to(folder) or is_beside_blob


def read_in(path: Path, tensors: Iterable[onnx.TensorProto]) -> None:
    """Read the bytes of tensors into memory; their files must have been checked (`located`)."""
    for tensor in tensors:
        entries = {e.key: e.value for e in tensor.external_data}
        with (path.parent / entries["location"]).open("rb") as stream:
            stream.seek(int(entries.get("offset", 0)))
            raw = stream.read(int(entries.get("length", -1)))
        tensor.raw_data = raw
        tensor.ClearField("data_location")
        del tensor.external_data[:]


def tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model: initializers and attributes, subgraphs and functions included."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (attribute.g, *attribute.graphs):
                yield from _graph_tensors(graph)


def without_data(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which tensors whose data are external are empty: for the ONNX checker, which
    takes a model in memory as complete and in a file refuses data behind links."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    for tensor in tensors(made):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.CopyFrom(onnx.TensorProto(name=tensor.name, data_type=tensor.data_type))
            tensor.dims.append(0)
            tensor.raw_data = b""
    return made


def locations(proto: onnx.ModelProto) -> set[str]:
    """Names of the files that a model's external data lie in, as it gives them."""
    outside = (t for t in tensors(proto) if t.data_location == onnx.TensorProto.EXTERNAL)
    entries = (entry for tensor in outside for entry in tensor.external_data)
    return {entry.value for entry in entries if entry.key == "location"}


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


def refuse_segment(path: Path, tensor: onnx.TensorProto) -> None:
    """Raises ModelError for a tensor that is a part of one, which neither onnx nor ONNX Runtime
    puts together."""
    if tensor.HasField("segment"):
        raise ModelError(
            f"{path}: tensor {tensor.name!r} is one segment of a larger tensor, which ONNX tools "
            "do not read; save the model with whole tensors"
        )


def refuse_misfitting(path: Path, tensor: onnx.TensorProto) -> None:
    """Raises ModelError if a tensor in the model does not hold the elements of its shape, which
    the checker does not see of one without axes."""
    if tensor.HasField("raw_data"):
        needed = _bytes(tensor)
        is_right = not needed or len(tensor.raw_data) == needed
    else:
        is_right = _is_readable(tensor)
    if not is_right:
        raise ModelError(
            f"{path}: tensor {tensor.name!r} does not hold as many elements as its shape "
            f"{'x'.join(map(str, tensor.dims)) or '()'} has; save the model again"
        )


def _is_readable(tensor: onnx.TensorProto) -> bool:
    """Whether elements that are stored one by one fill the shape, as far as numpy has the type."""
    if element_type(tensor.data_type) is None:
        return True
    try:
        onnx.numpy_helper.to_array(tensor)
    except ValueError:
        return False
    return True


def _bytes(tensor: onnx.TensorProto) -> int:
    """The size of a tensor's elements in bytes; 0 for types that numpy does not have."""
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
