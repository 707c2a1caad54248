"""`onnxcp benchmark`: how fast one model is, or which of two is faster."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxcp.cli import options
from onnxcp.cli.console import errors_as_lines, progress_shown

if TYPE_CHECKING:
    from onnxcp.artifacts.reservation import Reads
    from onnxcp.measure.baseline import Change
    from onnxcp.measure.benchmark import Timed


def benchmark(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The .onnx file.")],
    other: Annotated[
        Path | None, typer.Argument(metavar="[OTHER]", help="Compare with this one, in turns.")
    ] = None,
    data: options.Data = [],  # noqa: B006
    calibration: options.Calibration = [],  # noqa: B006
    preprocess: options.Preprocess = "none",
    provider: options.Provider = "cpu",
    provider_option: options.ProviderOption = [],  # noqa: B006
    cuda_graph: options.CudaGraph = None,
    threads: options.Threads = 0,
    precision: options.Precision = None,
    raise_opset: options.RaiseOpset = False,
    batch: Annotated[
        str | None,
        typer.Option("--batch", metavar="N[,N...]", help="Sizes of a dynamic batch; default 1."),
    ] = None,
    input_shape: options.InputShape = [],  # noqa: B006
    warmup: Annotated[int, typer.Option("--warmup", metavar="N", help="Runs not counted.")] = 10,
    iterations: Annotated[
        int, typer.Option("--iterations", metavar="N", help="Run at least N times.")
    ] = 100,
    duration: Annotated[
        float, typer.Option("--duration", metavar="S", help="Run at least S seconds.")
    ] = 3.0,
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", metavar="FILE", help="Compare with what --report wrote before."),
    ] = None,
    fail_if_slower: Annotated[
        str | None,
        typer.Option(
            "--fail-if-slower",
            metavar="5%",
            help="Exit with 1 if slower by more: than the baseline, else the second model than "
            "the first.",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.json", help="Write the figures.")
    ] = None,
    export_times: Annotated[
        Path | None,
        typer.Option("--export-times", metavar="FILE", help="Write every run's time: .json, .csv."),
    ] = None,
    overwrite: options.Overwrite = False,
    seed: options.Seed = 0,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Time one model, or two in turns with the ratio and its 95 % interval.

    With --precision MODEL is timed in turns with itself so converted; given OTHER too, both are
    converted. To time a model file that is int8 or float16 already, leave --precision out.
    """
    with errors_as_lines(verbose):
        from onnxcp.artifacts.publishing import publish
        from onnxcp.artifacts.reservation import Reads
        from onnxcp.measure import baseline as earlier
        from onnxcp.measure import benchmark as timing
        from onnxcp.report import benchmark as timesheet

        wanted = options.precision(precision)
        target = options.target(provider, provider_option, threads, cuda_graph)
        sources = options.sources(
            data, preprocess, None, input_shape, calibration=calibration, seed=seed
        )
        models = [model] if other is None else [model, other]
        length, batches = timing.Length(warmup, iterations, duration), timing.batch_sizes(batch)
        is_compared = bool(baseline or other) or wanted != "float32"
        limit = _limit(fail_if_slower, is_compared=is_compared)
        reads = Reads(tuple(models), (*data, *calibration), (baseline, preprocess))
        _reserve(report, export_times, reads, overwrite=overwrite)
        before = None if baseline is None else earlier.from_file(baseline)
        with progress_shown(quiet, verbose) as progress:
            timed = timing.run(
                models,
                sources,
                target,
                length,
                progress,
                batches,
                precision=wanted,
                raise_opset=raise_opset,
            )
        changes = _changes(timed, before, baseline)
        texts = {} if report is None else {report: timesheet.to_json(timed, changes)}
        if export_times is not None:
            texts[export_times] = timesheet.times(timed, export_times.suffix)
        publish(texts, overwrite=overwrite)
        show = timesheet.to_json if json else timesheet.to_text
        typer.echo(show(timed, changes).rstrip("\n"))
        _judge(limit, timed, changes)


def _limit(text: str | None, *, is_compared: bool) -> float | None:
    from onnxcp.errors import UsageError
    from onnxcp.measure.baseline import parse_limit

    if text is not None and not is_compared:
        raise UsageError(f"--fail-if-slower {text}: than what? give OTHER, or --baseline FILE")
    return None if text is None else parse_limit(text)


def _reserve(report: Path | None, times: Path | None, reads: "Reads", *, overwrite: bool) -> None:
    from onnxcp.artifacts.reservation import reserve
    from onnxcp.errors import UsageError

    for option, path, kinds in (
        ("--report", report, (".json",)),
        ("--export-times", times, (".json", ".csv")),
    ):
        if path is not None and path.suffix not in kinds:
            raise UsageError(f"{option} {path}: name a file that ends in {' or '.join(kinds)}")
    reserve([path for path in (report, times) if path], reads, overwrite=overwrite)


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
