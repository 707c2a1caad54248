"""`onnxcp doctor`: what this installation can do, and how to mend what it can not."""

from typing import Annotated

import typer

from onnxcp.cli import options
from onnxcp.cli.console import errors_as_lines, width


def doctor(
    provider: Annotated[
        list[str],
        typer.Option(
            "--provider",
            metavar="NAME",
            help="Prove this one; default: all that ONNX Runtime offers. Repeatable.",
        ),
    ] = [],  # noqa: B006
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", min=1, help="Longest that a proof may take.")
    ] = 60.0,
    json: options.Json = False,
    verbose: options.Verbose = 0,
) -> None:
    """Tell versions, CPU and GPUs, and prove every provider by a Conv that runs on it.

    Exit code 3 if a provider that was named, or that the installed ONNX Runtime is made for,
    does not work; the text says why, and what to do.
    """
    with errors_as_lines(verbose):
        from onnxcp.report import doctor as diagnosis
        from onnxcp.runtime.diagnosis import examine

        found = examine(provider, timeout)
        typer.echo(diagnosis.as_json(found) if json else diagnosis.as_text(found, width()))
        raise typer.Exit(found.exit_code)
