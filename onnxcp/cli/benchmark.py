"""`onnxcp benchmark`: how fast one model is, or which of two is faster."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxcp.cli.command import Only, command
from onnxcp.cli.console import ConsoleOptions, progress_shown
from onnxcp.cli.options import Json, Model, warn_of_threads
from onnxcp.cli.reports import (
    REPORT,
    print_result,
    refuse_formats,
    reserve_reports,
    texts_of,
)
from onnxcp.options.data import DataOptions
from onnxcp.options.duration import DurationOptions
from onnxcp.options.option import Option
from onnxcp.options.run import RunOptions
from onnxcp.options.target import TargetOptions

if TYPE_CHECKING:
    from onnxcp.measure.baseline import Change
    from onnxcp.measure.benchmark import Timed

DATA = ("data", "calibration", "preprocess", "input_shape")
TARGET = ("precision", "raise_opset", "provider", "provider_option", "cuda_graph", "threads")
Other = Annotated[
    Path | None, typer.Argument(metavar="[OTHER]", help="Compare with this one, in turns.")
]

Batch = Annotated[str | None, Option("Sizes of a dynamic batch; default 1.", metavar="N[,N...]")]
Baseline = Annotated[
    Path | None, Option("Compare with what <<report>> wrote before.", metavar="FILE")
]
FailIfSlower = Annotated[
    str | None,
    Option(
        "Exit with 1 if slower by more: than the baseline, else the second model than the first.",
        metavar="5%",
    ),
]
ExportTimes = Annotated[Path | None, Option("Write every run's time: .json, .csv.", metavar="FILE")]


@command
def benchmark(
    model: Model,
    other: Other = None,
    *,
    data: Annotated[DataOptions, Only(*DATA)],
    target: Annotated[TargetOptions, Only(*TARGET)],
    batch: Batch = None,
    duration: DurationOptions,
    baseline: Baseline = None,
    fail_if_slower: FailIfSlower = None,
    export_times: ExportTimes = None,
    run: Annotated[RunOptions, Only("seed", *REPORT)],
    json: Json = False,
    console: ConsoleOptions,
) -> None:
    """Time one model, or two in turns with the ratio and its 95 % interval.

    With --precision MODEL is timed in turns with itself so converted; given OTHER too, both are
    converted. To time a model file that is int8 or float16 already, leave --precision out.
    """
    from onnxcp.artifacts.publishing import publish
    from onnxcp.artifacts.reservation import Reads
    from onnxcp.data.roles import Sources
    from onnxcp.measure import baseline as earlier
    from onnxcp.measure import benchmark as timing
    from onnxcp.quantization.precision import FLOAT32
    from onnxcp.report import benchmark as timesheet
    from onnxcp.runtime.providers import Target

    precision = target.precision or FLOAT32
    where, sources = warn_of_threads(Target.of(target)), Sources.of(data, run.seed)
    models = [model] if other is None else [model, other]
    batches = timing.batch_sizes(batch)
    limit = _limit(fail_if_slower, is_compared=bool(baseline or other) or precision != FLOAT32)
    times = [] if export_times is None else [export_times]
    refuse_formats("export_times", times, [".json", ".csv"])
    others = (baseline, data.preprocess)
    reads = Reads(tuple(models), (*data.data, *data.calibration), others)
    reserve_reports(run, reads, times)
    before = None if baseline is None else earlier.from_file(baseline)
    with progress_shown(console) as progress:
        timed = timing.run(
            models,
            sources,
            where,
            duration,
            progress,
            batches,
            precision=precision,
            raise_opset=target.raise_opset,
        )
    changes = _changes(timed, before, baseline)
    page = timesheet.page(timed, changes)
    texts = {path: timesheet.times(timed, path.suffix) for path in times}
    publish({**texts_of(run, page), **texts}, overwrite=run.overwrite)
    print_result(page, timesheet.to_text(timed, changes), json=json)
    _judge(limit, timed, changes)


def _limit(text: str | None, *, is_compared: bool) -> float | None:
    from onnxcp.errors import UsageError
    from onnxcp.measure.baseline import parse_limit

    if text is not None and not is_compared:
        raise UsageError(f"<<fail_if_slower={text}>>: than what? give OTHER, or <<baseline=FILE>>")
    return None if text is None else parse_limit(text)


def _changes(timed: "Timed", before: dict[str, Any] | None, where: Path | None) -> "list[Change]":
    from onnxcp.measure.baseline import since

    return [] if before is None else since(before, timed, str(where))


def _judge(limit: float | None, timed: "Timed", changes: "list[Change]") -> None:
    """Exit with 1 where something is slower than it may be."""
    from onnxcp.measure.baseline import of_two

    if limit is None:
        return
    for change in changes or of_two(timed):
        if change.exceeds(limit):
            typer.echo(
                f"FAILED batch {change.batch}: {change.slower:.1%} slower, --fail-if-slower "
                f"allows {limit:.1%}",
                err=True,
            )
            raise typer.Exit(1)
