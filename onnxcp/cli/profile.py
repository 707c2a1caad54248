"""`onnxcp profile`: the latency table of a model on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcp.cli import options
from onnxcp.cli.console import errors_as_lines, progress_shown


def profile(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The .onnx file.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The table to write.")
    ] = Path("latency.json"),
    form: Annotated[
        str,
        typer.Option("--form", metavar="NAME", help="auto, cp3, cp4, tkd, tucker2 or svd."),
    ] = "auto",
    precision: options.Precision = None,
    provider: options.Provider = "cpu",
    provider_option: options.ProviderOption = [],  # noqa: B006
    cuda_graph: options.CudaGraph = None,
    threads: options.Threads = 0,
    batch: options.Batch = None,
    input_shape: options.InputShape = [],  # noqa: B006
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Time every candidate chain on this machine, for `optimize --latency` on any other.

    Needs no data, and of the libraries only numpy, onnx and onnxruntime.
    """
    with errors_as_lines(verbose):
        from onnxcp.artifacts.publishing import publish
        from onnxcp.artifacts.reservation import Reads, reserve
        from onnxcp.latency import table, tabulate

        target = options.target(provider, provider_option, threads, cuda_graph)
        sources = options.sources([], "none", batch, input_shape, seed=seed)
        reserve([output], Reads((model,)), overwrite=overwrite)
        with progress_shown(quiet, verbose) as progress:
            made = tabulate.profile(
                model,
                sources,
                target,
                options.forms(form),
                precision=options.precision(precision),
                progress=progress,
            )
        publish({output: table.to_text(made)}, overwrite=overwrite)
        if not quiet:
            typer.echo(tabulate.as_text(made))
