"""Reports of the commands, for people and for programs.

One module per command turns its result into a `table.Page`, and into the text for a terminal. To
add a format for all commands, write a function `(Page) -> str`, a row in `WRITERS` and a golden
file.
"""

from collections.abc import Callable

from onnxcp.options.table import Table
from onnxcp.report.table import Page
from onnxcp.results import Report

WRITERS: Table[Callable[[Page], str]] = Table(
    {
        ".json": "onnxcp.report.json:to_json",
        ".md": "onnxcp.report.markdown:to_markdown",
    }
)
"""Formats by the suffix of a file."""

__all__ = ["WRITERS", "Page", "Report"]
