"""`onnxcp inspect`: every convolution, and what could be done with it."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcp.cli import options
from onnxcp.cli.console import errors_as_lines, progress_shown, width


def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The .onnx file.")],
    batch: options.Batch = None,
    input_shape: options.InputShape = [],  # noqa: B006
    profile: Annotated[
        bool, typer.Option("--profile", help="Add the measured time of every site's Conv.")
    ] = False,
    ranks: Annotated[
        bool,
        typer.Option("--ranks", help="Fit, and list error and sensitivity against rank instead."),
    ] = False,
    form: Annotated[
        str, typer.Option("--form", metavar="NAME", help="Of --ranks: auto, or one form.")
    ] = "auto",
    calibration: options.Calibration = [],  # noqa: B006
    preprocess: options.Preprocess = "none",
    jobs: options.Jobs = None,
    cache: options.Cache = None,
    no_cache: options.NoCache = False,
    provider: options.Provider = "cpu",
    provider_option: options.ProviderOption = [],  # noqa: B006
    threads: options.Threads = 0,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """List every Conv and matrix product: shape, cost, and whether a chain can replace it."""
    with errors_as_lines(verbose):
        target = options.target(provider, provider_option, threads)
        sources = options.sources([], preprocess, batch, input_shape, calibration=calibration)
        if not ranks:
            from onnxcp.latency import listing
            from onnxcp.report import inspect as table

            found = listing.survey_layers(model, sources, target, profile=profile)
            typer.echo(table.as_json(found) if json else table.as_text(found, width()))
            return
        from onnxcp.fitting import rank_curves

        with progress_shown(quiet, verbose) as progress:
            made = rank_curves.rank_curves(
                model,
                sources,
                target,
                options.forms(form),
                jobs=options.jobs(jobs, None),
                cache=options.cache(cache, no_cache),
                progress=progress,
            )
        typer.echo(rank_curves.as_json(made) if json else rank_curves.as_text(made))
