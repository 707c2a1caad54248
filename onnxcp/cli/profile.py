"""`onnxcp profile`: the latency table of a model on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcp.cli.command import Only, command
from onnxcp.cli.console import ConsoleOptions, progress_shown
from onnxcp.cli.flags import as_flags
from onnxcp.cli.options import Model, warn_of_threads
from onnxcp.cli.reports import REPORT, reserve_reports, texts_of
from onnxcp.options.data import DataOptions
from onnxcp.options.option import Option
from onnxcp.options.plan import PlanOptions
from onnxcp.options.run import RunOptions
from onnxcp.options.target import TargetOptions

TARGET = ("precision", "provider", "provider_option", "cuda_graph", "threads")


@command
def profile(
    model: Model,
    output: Annotated[Path, Option("The table to write.", metavar="FILE", short="o")] = Path(
        "latency.json"
    ),
    *,
    plan: Annotated[PlanOptions, Only("form")],
    target: Annotated[TargetOptions, Only(*TARGET)],
    data: Annotated[DataOptions, Only("batch", "input_shape")],
    run: Annotated[RunOptions, Only("seed", *REPORT)],
    console: ConsoleOptions,
) -> None:
    """Time every candidate chain on this machine, for `optimize --latency` on any other.

    Needs no data, and of the packages only numpy, onnx, onnxruntime, msgspec and typer.
    """
    from onnxcp.artifacts.publishing import publish
    from onnxcp.artifacts.reservation import Reads
    from onnxcp.data.roles import Sources
    from onnxcp.forms import named
    from onnxcp.latency import table, tabulate
    from onnxcp.quantization.precision import FLOAT32
    from onnxcp.report.profile import as_text, page
    from onnxcp.runtime.providers import Target

    where = warn_of_threads(Target.of(target))
    sources = Sources.of(data, run.seed)
    reserve_reports(run, Reads((model,)), [output])
    with progress_shown(console) as progress:
        made = tabulate.profile(
            model,
            sources,
            where,
            named(plan.form),
            precision=target.precision or FLOAT32,
            progress=progress,
        )
    texts = {**texts_of(run, page(made)), output: table.to_text(as_flags(made))}
    publish(texts, overwrite=run.overwrite)
    if not console.quiet:
        typer.echo(as_flags(as_text(made)))
