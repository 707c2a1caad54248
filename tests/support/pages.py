"""A run of `optimize` in the formats of files."""

from onnxcp.report import WRITERS
from onnxcp.report.optimize import page


def as_json(report):
    return WRITERS[".json"](page(report))


def as_markdown(report):
    return WRITERS[".md"](page(report))
