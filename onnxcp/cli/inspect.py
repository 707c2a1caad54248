"""`onnxcp inspect`: every convolution, and what could be done with it."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcp.cli import options
from onnxcp.cli.console import errors_as_lines, width


def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The .onnx file.")],
    batch: options.Batch = None,
    input_shape: options.InputShape = [],  # noqa: B006
    profile: Annotated[
        bool, typer.Option("--profile", help="Add the measured time of every site's Conv.")
    ] = False,
    provider: options.Provider = "cpu",
    provider_option: options.ProviderOption = [],  # noqa: B006
    threads: options.Threads = 0,
    json: options.Json = False,
    verbose: options.Verbose = 0,
) -> None:
    """List every Conv and matrix product: shape, cost, and whether a chain can replace it."""
    with errors_as_lines(verbose):
        from onnxcp.listing import as_json, as_text, survey_layers

        target = options.target(provider, provider_option, threads)
        sources = options.sources([], "none", batch, input_shape)
        listing = survey_layers(model, sources, target, profile=profile)
        typer.echo(as_json(listing) if json else as_text(listing, width()))
