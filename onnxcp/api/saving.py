"""A model that a run wrote, read back into memory, and written again where its caller wants it."""

from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxcp.artifacts.publishing import publish
from onnxcp.artifacts.reservation import Reads, model_files, reserve
from onnxcp.graph import io
from onnxcp.plan import plan_file
from onnxcp.storage import temporary


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """A model, the names of its tensors that lie outside its file, and the text of its plan;
    None for a model without one."""

    model: onnx.ModelProto
    external: frozenset[str]
    plan: str | None

    def write(self, path: Path, *, overwrite: bool) -> Path:
        """Write the files of the model and its plan: all of them or, after an error, none.

        Raises:
            OutputError: one is there and `overwrite` is off, or cannot be written.
        """
        texts = {} if self.plan is None else {plan_file(path): self.plan}
        reserve([*model_files(path), *texts], Reads(), overwrite=overwrite)
        with temporary.folder(path.parent) as folder:
            staged = folder / path.name
            io.save(self.model, staged, self.external)
            publish(texts, [(staged, path)], overwrite=overwrite)
        return path


def read_back(path: Path) -> Saved:
    """The model that lies at a path as a run has just written it, with its plan."""
    proto = onnx.load(path, load_external_data=False)
    outside = onnx.TensorProto.EXTERNAL
    external = frozenset(t.name for t in io.tensors(proto) if t.data_location == outside)
    plan = plan_file(path)
    text = plan.read_text(encoding="utf-8") if plan.is_file() else None
    return Saved(onnx.load(path) if external else proto, external, text)
