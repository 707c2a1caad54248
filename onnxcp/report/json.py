"""A report as JSON, for programs: of `optimize` RUN.json, which `schema.json` describes."""

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
    """The same of what JSON holds: null for NaN and infinity, numbers without numpy."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.item() if hasattr(value, "item") else value
