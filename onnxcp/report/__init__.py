"""What a command did, written for people and programs.

A module for every command makes a `table.Page` of its result, and the text that a terminal shows.
To add a format for all of them: a function `(Page) -> str`, a row in `WRITERS`, and a golden file.
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
