"""What a run did, written for people and programs.

To add a format: a function `(Report) -> str`, a row in `WRITERS`, and a golden file.
"""

from collections.abc import Callable

from onnxcp.report.json import to_json
from onnxcp.report.markdown import to_markdown
from onnxcp.results import Report

WRITERS: dict[str, Callable[[Report], str]] = {
    ".json": to_json,
    ".md": to_markdown,
}

__all__ = ["WRITERS", "Report"]
