"""`onnxcp verify`: are two models' outputs equal, and if not where and by how much."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcp.cli import options
from onnxcp.cli.console import errors_as_lines, progress_shown


def verify(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="The original.")],
    candidate: Annotated[Path, typer.Argument(metavar="CANDIDATE", help="What to check.")],
    data: options.Data = [],  # noqa: B006
    preprocess: options.Preprocess = "none",
    samples: options.Samples = None,
    rtol: Annotated[
        float | None, typer.Option("--rtol", metavar="X", min=0, help="Relative tolerance.")
    ] = None,
    atol: Annotated[
        float | None, typer.Option("--atol", metavar="X", min=0, help="Absolute tolerance.")
    ] = None,
    check_error_stat: Annotated[
        str,
        typer.Option(
            "--check-error-stat",
            metavar="[OUTPUT:]STAT",
            help="What the tolerance bounds: elemwise, max, mean or median.",
        ),
    ] = "elemwise",
    metric: options.Metric = None,
    max_drop: options.MaxDrop = None,
    provider: options.Provider = "cpu",
    provider_option: options.ProviderOption = [],  # noqa: B006
    threads: options.Threads = 0,
    batch: options.Batch = None,
    input_shape: options.InputShape = [],  # noqa: B006
    seed: options.Seed = 0,
    json: options.Json = False,
    verbose: options.Verbose = 0,
) -> None:
    """Compare outputs, and accuracy if --max-drop or --metric asks for it.

    Fails (exit 1) on NaN, infinity, unequal shapes, a tolerance or drop exceeded. Without
    tolerances it reports how far the outputs are apart.
    """
    with errors_as_lines(verbose):
        from onnxcp import comparison

        sources = options.sources(data, preprocess, batch, input_shape, samples=samples, seed=seed)
        with progress_shown(quiet=False, verbose=verbose) as progress:
            found = comparison.run(
                reference,
                candidate,
                sources,
                options.target(provider, provider_option, threads),
                tolerance=comparison.tolerance(rtol, atol, check_error_stat),
                metric=metric,
                max_drop=max_drop,
                progress=progress,
            )
        typer.echo(comparison.as_json(found) if json else comparison.as_text(found))
        raise typer.Exit(0 if found.ok else 1)
