"""RUN.json: the record itself, described by `schema.json`."""

import json
import math
from importlib.resources import files
from typing import Any

from onnxcp.report.record import Report


def to_json(report: Report) -> str:
    """The record as JSON. Numbers that JSON can not hold become null."""
    return json.dumps(_plain(report.document()), indent=2, allow_nan=False) + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema that every RUN.json satisfies."""
    text = files("onnxcp.report").joinpath("schema.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.item() if hasattr(value, "item") else value
