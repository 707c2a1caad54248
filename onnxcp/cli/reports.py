"""What a command reports: on the terminal, and in files of every format."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from onnxcp.cli.flags import as_flags
from onnxcp.options.run import RunOptions

if TYPE_CHECKING:
    from onnxcp.artifacts.reservation import Reads
    from onnxcp.report import Page

REPORT = ("report", "overwrite")  # options of a command that writes no other file


def reserve_reports(run: RunOptions, reads: "Reads", others: Sequence[Path] = ()) -> None:
    """Make sure, before any work, that the reports and other files can be written.

    Raises:
        OutputError: one exists and may not be replaced, is read by the run, or cannot be written.
        UsageError: a file whose format has no writer.
    """
    from onnxcp.artifacts.reservation import reserve
    from onnxcp.report import WRITERS

    refuse_formats("report", run.report, WRITERS)
    reserve([*run.report, *others], reads, overwrite=run.overwrite)


def refuse_formats(option: str, paths: Iterable[Path], suffixes: Iterable[str]) -> None:
    """Raises UsageError for a file whose format has no writer."""
    from onnxcp.errors import UsageError

    known = tuple(suffixes)
    for path in paths:
        if path.suffix not in known:
            raise UsageError(f"<<{option}={path}>>: name a file that ends in {' or '.join(known)}")


def texts_of(run: RunOptions, page: "Page") -> dict[Path, str]:
    """The text of every report that was asked for."""
    from onnxcp.report import WRITERS

    said = as_flags(page)
    return {path: as_flags(WRITERS[path.suffix](said)) for path in run.report}


def write_reports(run: RunOptions, page: "Page") -> None:
    """Write every report that was asked for: all of them or, after an error, none."""
    from onnxcp.artifacts.publishing import publish

    publish(texts_of(run, page), overwrite=run.overwrite)


def print_result(page: "Page", text: str, *, json: bool) -> None:
    """Print a result as text, or as JSON where that is asked for."""
    from onnxcp.report import WRITERS

    shown = WRITERS[".json"](as_flags(page)).rstrip("\n") if json else text
    typer.echo(as_flags(shown))
