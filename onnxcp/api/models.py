"""Models as a caller may give them: the path of a file, or a model in memory.

What computes reads files, so a model in memory is written into the folder of the call, with its
large tensors beside it where one message cannot hold them.
"""

import os
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import onnx
from google.protobuf.message import EncodeError

from onnxcp.errors import ModelError, UsageError
from onnxcp.graph import io


class Graph(Protocol):
    """An onnx_graphsurgeon.Graph, as far as it says what it is."""

    nodes: Any
    inputs: Any
    outputs: Any
    import_domains: Any


ModelLike: TypeAlias = str | os.PathLike[str] | onnx.ModelProto | Graph
SURGEON = "onnx_graphsurgeon"


def model_file(model: ModelLike, keyword: str, folder: Path) -> Path:
    """The file of a model: its own path, or that of a copy in `folder`, named after `keyword`.

    Raises:
        ModelError: the model refers to tensors in files of an unknown folder, or cannot be
            written.
        UsageError: it is neither a path nor a model.
    """
    if isinstance(model, str | os.PathLike):
        return Path(model)
    path = folder / f"{keyword}.onnx"
    proto = _as_proto(model, keyword)
    _refuse_detached(proto, keyword)
    try:
        io.save(proto, path)
    except (EncodeError, ValueError) as error:
        raise ModelError(
            f"{keyword}: cannot be written as one message ({error}); save it with external data, "
            "and give the path"
        ) from error
    return path


def _as_proto(model: Any, keyword: str) -> onnx.ModelProto:
    if isinstance(model, onnx.ModelProto):
        return model
    if any(c.__module__.partition(".")[0] == SURGEON for c in type(model).__mro__):
        import onnx_graphsurgeon

        if isinstance(model, onnx_graphsurgeon.Graph):
            exported: onnx.ModelProto = onnx_graphsurgeon.export_onnx(model)
            return exported
    raise UsageError(
        f"{keyword}: {type(model).__name__} is no model; give the path of an .onnx file, an "
        "onnx.ModelProto, or an onnx_graphsurgeon.Graph"
    )


def _refuse_detached(proto: onnx.ModelProto, keyword: str) -> None:
    """Raises ModelError for tensors whose bytes lie in files: which folder they are in, only the
    path of the model tells."""
    external = onnx.TensorProto.EXTERNAL
    outside = [t.name for t in io.tensors(proto) if t.data_location == external]
    if outside:
        raise ModelError(
            f"{keyword}: the values of {outside[0]!r} lie in a file, and a ModelProto does not "
            "know in which folder; load it with onnx.load(path), or give the path"
        )
