"""`onnxcp doctor`: what this installation can do, and how to mend what it cannot."""

from typing import Annotated

import typer

from onnxcp.cli.command import Only, command
from onnxcp.cli.console import ConsoleOptions, width
from onnxcp.cli.flags import as_flags
from onnxcp.cli.options import Json
from onnxcp.cli.reports import REPORT, print_result, reserve_reports, write_reports
from onnxcp.options.option import Option
from onnxcp.options.run import RunOptions

PROVIDERS = ("onnxcp.runtime.provider_table:PROVIDERS",)


@command
def doctor(
    *,
    provider: Annotated[
        tuple[str, ...],
        Option(
            "Prove this one; default: all that ONNX Runtime offers. Repeatable.",
            metavar="NAME",
            choices=PROVIDERS,
            is_open=True,
        ),
    ] = (),
    timeout: Annotated[float, Option("Longest that a proof may take.", metavar="S", min=1)] = 60.0,
    run: Annotated[RunOptions, Only(*REPORT)],
    json: Json = False,
    console: Annotated[ConsoleOptions, Only("verbose")],
) -> None:
    """Tell versions, CPU and GPUs, and prove every provider by a Conv that runs on it.

    Exit code 3 if a provider that was named, or that the installed ONNX Runtime is made for,
    does not work; the text says why, and what to do.
    """
    del console
    from onnxcp.artifacts.reservation import Reads
    from onnxcp.report import doctor as findings
    from onnxcp.runtime.diagnosis import examine

    reserve_reports(run, Reads())
    state = examine(list(provider), timeout)
    page = findings.page(state)
    write_reports(run, page)
    print_result(page, findings.as_text(as_flags(state), width()), json=json)
    raise typer.Exit(state.exit_code)
