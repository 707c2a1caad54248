"""Models as files: read with every doubt settled, and written into a run's own folder, from
where `publishing` puts them in their places.

External data is read into memory with the model and written next to the model again, one
file `<model>.data` for all tensors that came from outside. Protocol buffers cannot hold
2 GiB in one message on disk, so a model above that is always written with external data.
"""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from onnxcp.errors import ModelError, OutputError
from onnxcp.graph import subnormals
from onnxcp.graph.acceptance import accepted
from onnxcp.graph.data_file_names import data_file as data_file
from onnxcp.graph.external_data import detached, located, read_in, refuse_misfitting, refuse_segment
from onnxcp.graph.external_data import tensors as tensors
from onnxcp.graph.input_specs import TensorSpec
from onnxcp.graph.nested import graphs
from onnxcp.graph.shapes import element_type

LARGEST_MESSAGE = 2**31 - 2**24  # bytes: protobuf's 2 GiB, less room for the graph itself


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A checked model in memory. `external` names the tensors that lay outside its file;
    those of Constant nodes may have no name, and are written inside. `shortcuts` are those that
    are convolutions in memory, and not in the file, and `repairs` say what else was changed for
    the ONNX checker to accept it."""

    path: Path
    proto: onnx.ModelProto
    sha256: str
    external: frozenset[str] = field(default_factory=frozenset)
    shortcuts: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know of the model in memory."""
        slow = subnormals.note(self.proto)
        notes = () if slow is None else (slow,)
        if not self.repairs:
            return notes
        done = "; ".join(self.repairs)
        repaired = f"the ONNX checker refuses the model, so a repaired copy is used: {done}"
        return (repaired, *notes)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What a caller feeds: graph inputs that are not initializers.

        Raises:
            ModelError: one of them is no tensor, or of an unknown type.
        """
        stored = {t.name for t in self.proto.graph.initializer}
        fed = [i for i in self.proto.graph.input if i.name not in stored]
        return tuple(_spec(self.path, i) for i in fed)


def load(path: Path) -> Model:
    """Read a model with its external data and check it; what ONNX Runtime runs and the checker
    refuses is repaired.

    Raises:
        ModelError: no file, not ONNX, truncated, refused by checker and runtime, or external
            data that is missing, short, or outside the model's folder.
    """
    proto = _parse(path)
    for tensor in tensors(proto):
        refuse_segment(path, tensor)
    outside = [t for t in tensors(proto) if t.data_location == onnx.TensorProto.EXTERNAL]
    files = sorted({located(path, t) for t in outside})
    repairs = accepted(path, proto)
    names = frozenset(t.name for t in outside if t.name)
    read_in(path, outside)
    for tensor in tensors(proto):
        if not tensor.dims:
            refuse_misfitting(path, tensor)
    return Model(path, proto, _sha256([path, *files]), names, repairs=repairs)


def copy(source: Path, path: Path) -> None:
    """Copy a model file; its external data become one file beside the copy.

    Raises:
        ModelError: as `load`.
    """
    model = load(source)
    if model.external:
        save(model.proto, path, model.external)
    else:
        shutil.copyfile(source, path)


def inputs_of(path: Path) -> tuple[TensorSpec, ...]:
    """What the caller of a model feeds, by its file alone: nothing else of it is checked.

    Raises:
        ModelError: no file, not ONNX, or an input that is no tensor.
    """
    return Model(path, _parse(path), "").inputs


def existing(path: Path) -> Path:
    """Raises ModelError if there is no file to read a model from."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise ModelError(f"{path}: {what}; give the path of an .onnx file")
    return path


def _parse(path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load(str(existing(path)), format="protobuf", load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ModelError(
            f"{path}: not an ONNX file, or a truncated one; export or copy it again"
        ) from error
    if not proto.ir_version or not (proto.graph.node or proto.graph.output):
        raise ModelError(f"{path}: not an ONNX model: it holds no graph; export it again")
    if any(isinstance(text, bytes) for text in _texts(proto)):
        raise ModelError(f"{path}: a name in it is no UTF-8 text; export or copy it again")
    return proto


def _texts(proto: onnx.ModelProto) -> Iterator[str | bytes]:
    """Names in graphs and functions, and the metadata: bytes where they are no UTF-8."""
    for node in (n for nodes in (*graphs(proto), *proto.functions) for n in nodes.node):
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for graph in graphs(proto):
        for named in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
            yield named.name
    for function in proto.functions:
        yield from (function.name, function.domain, *function.input, *function.output)
    for entry in proto.metadata_props:
        yield from (entry.key, entry.value)


def _spec(path: Path, value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    dtype = element_type(kind.elem_type)
    if dtype is None:
        raise ModelError(
            f"{path}: input {value.name!r} is no tensor of a known type; give a model that "
            "takes tensors only"
        )
    if not kind.HasField("shape"):
        return TensorSpec(value.name, dtype, None)
    dims = [
        d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in kind.shape.dim
    ]
    return TensorSpec(value.name, dtype, tuple(dims))


def _sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def _unwritten(path: Path, error: OSError) -> str:
    return f"{path}: cannot be written: {error.strerror}; check the folder and its free space"


def save(proto: onnx.ModelProto, path: Path, external: frozenset[str] = frozenset()) -> None:
    """Write a model into a folder of the run's own, where nothing is lost if that fails; the
    tensors named in `external` go to `data_file(path)`.

    Raises:
        OutputError: the disk is full or the folder is not writable.
    """
    if is_large(proto):
        external |= {t.name for t in proto.graph.initializer if len(t.raw_data) >= 1024}
    try:
        if not external:
            path.write_bytes(proto.SerializeToString())
            return
        with detached(tensors(proto), external, data_file(path)):
            path.write_bytes(proto.SerializeToString())
    except OSError as error:
        raise OutputError(_unwritten(path, error)) from error


def is_large(proto: onnx.ModelProto) -> bool:
    """Whether a model is too large to be one message."""
    return sum(len(t.raw_data) for t in proto.graph.initializer) > LARGEST_MESSAGE
