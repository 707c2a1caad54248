"""Reports as JSON, for programs; `schema.json` describes RUN.json, the report of `optimize`."""

import json
import math
from importlib.resources import files
from typing import Any

from onnxcp.report.table import Page


def to_json(page: Page) -> str:
    """The page's document. Numbers that JSON cannot hold become null."""
    return json.dumps(plain(page.document), indent=2, allow_nan=False) + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema that every RUN.json satisfies."""
    text = files("onnxcp.report").joinpath("schema.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def plain(value: Any) -> Any:
    """A value as JSON types: None for NaN and infinity, Python numbers for numpy's."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.item() if hasattr(value, "item") else value
