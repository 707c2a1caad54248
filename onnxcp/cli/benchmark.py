"""`onnxcp benchmark`: how fast one model is, or which of two is faster."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcp.cli import options
from onnxcp.cli.console import errors_as_lines, progress_shown


def benchmark(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The .onnx file.")],
    other: Annotated[
        Path | None, typer.Argument(metavar="[OTHER]", help="Compare with this one, in turns.")
    ] = None,
    data: options.Data = [],  # noqa: B006
    preprocess: options.Preprocess = "none",
    provider: options.Provider = "cpu",
    provider_option: options.ProviderOption = [],  # noqa: B006
    threads: options.Threads = 0,
    batch: options.Batch = None,
    input_shape: options.InputShape = [],  # noqa: B006
    warmup: Annotated[
        int, typer.Option("--warmup", metavar="N", min=0, help="Runs not counted.")
    ] = 10,
    iterations: options.Iterations = 100,
    duration: Annotated[
        float, typer.Option("--duration", metavar="S", min=0.0, help="Run at least S seconds.")
    ] = 3.0,
    seed: options.Seed = 0,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Time one model, or two in turns with the ratio and its 95 % interval."""
    with errors_as_lines(verbose):
        from onnxcp import timing

        target = options.target(provider, provider_option, threads)
        sources = options.sources(data, preprocess, batch, input_shape, seed=seed)
        models = [model] if other is None else [model, other]
        limits = timing.Length(warmup, iterations, duration)
        with progress_shown(quiet, verbose) as progress:
            timed = timing.run(models, sources, target, limits, progress)
        typer.echo(timing.as_json(timed) if json else timing.as_text(timed))
