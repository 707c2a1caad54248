"""`onnxcp.profile`: the latency table of a model on this machine."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Unpack

from onnxcp.api.keywords import grouped, single, verb
from onnxcp.api.models import ModelLike
from onnxcp.api.settings import data_of
from onnxcp.api.shown import Shown
from onnxcp.api.staging import staging
from onnxcp.api.types import PathLike, Profile
from onnxcp.artifacts.publishing import publish
from onnxcp.artifacts.reservation import Reads, reserve
from onnxcp.data.roles import Sources
from onnxcp.errors import as_keywords
from onnxcp.forms import named
from onnxcp.latency import tabulate
from onnxcp.latency.table import Table, to_text
from onnxcp.options.plan import PlanOptions
from onnxcp.options.run import RunOptions
from onnxcp.options.target import TargetOptions
from onnxcp.progress import Progress, silent
from onnxcp.quantization.precision import FLOAT32
from onnxcp.report import Page
from onnxcp.report.profile import as_text, page
from onnxcp.runtime.providers import Target


@dataclass(frozen=True, slots=True)
class ProfileResult(Shown, Table):
    """The times of every candidate chain, in seconds, on one target."""

    @property
    def document(self) -> str:
        """The table as a file holds it, which `optimize(latency=…)` plans by."""
        return to_text(self)

    def save(self, path: PathLike, *, overwrite: bool = False) -> Path:
        """Write the table, for `optimize` on any other machine.

        Raises:
            OutputError: the file is there and `overwrite` is off, or cannot be written.
        """
        target = Path(path)
        reserve([target], Reads(), overwrite=overwrite)
        publish({target: to_text(self)}, overwrite=overwrite)
        return target

    def to_text(self) -> str:
        """What the command prints."""
        return as_keywords(as_text(self))

    def _page(self) -> Page:
        return page(self)


@verb()
def profile(
    model: ModelLike, *, progress: Progress = silent, **options: Unpack[Profile]
) -> ProfileResult:
    """Time every candidate chain on this machine, for `onnxcp.optimize(latency=…)` on any other.

    Args:
        model: a path, an onnx.ModelProto or an onnx_graphsurgeon.Graph.
        output: where to write the table; by default nothing is written, and `result.save` does.

    Raises:
        TypeError: an unknown keyword, with the nearest that there is.
        TooBusy: other work on the machine left nothing to be told of speed.
        OnnxcpError: an unusable model or keyword, which the message names.
    """
    with staging() as staged:
        given: dict[str, Any] = {**options}
        where, run = grouped(TargetOptions, given), grouped(RunOptions, given)
        forms = named(grouped(PlanOptions, given).form)
        path, output = staged.model(model), single("output", Path, given.get("output"))
        if output is not None:
            reserve([output], Reads((path,)), overwrite=run.overwrite)
        sources = Sources.of(data_of(given, staged, path), run.seed)
        precision = where.precision or FLOAT32
        table = tabulate.profile(
            path, sources, Target.of(where), forms, precision=precision, progress=progress
        )
        made = ProfileResult(**{f.name: getattr(table, f.name) for f in fields(table)})
        if output is not None:
            made.save(output, overwrite=run.overwrite)
        return made
