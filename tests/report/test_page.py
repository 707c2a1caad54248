"""A page in the formats of files, whatever command it is of."""

import json
import os
import pathlib

import pytest

from onnxcp.report import WRITERS
from onnxcp.report.table import Page, Table, names, numbers, texts

GOLDEN = pathlib.Path(__file__).parent / "golden/page.md"
PAGE = Page(
    "passed, with *markup* in it",
    {"ok": True, "loss": float("inf"), "layers": ({"name": "a"},)},
    ["the first | warning", "the second"],
    [("model", "net.onnx"), ("", "what has no label")],
    [
        Table(
            [names("layer"), texts("why"), *numbers("ms")], [("a|b", "c<d>", "1.0"), ("e", "", "")]
        ),
        Table([texts("what")], [("f",)], "Its own title"),
    ],
    "onnxcp verify a.onnx b.onnx",
)


def test_markdown_reads_as_agreed():
    text = WRITERS[".md"](PAGE)
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_json_is_the_document_with_null_for_what_is_no_number():
    assert json.loads(WRITERS[".json"](PAGE)) == {
        "ok": True,
        "loss": None,
        "layers": [{"name": "a"}],
    }


@pytest.mark.parametrize("table", PAGE.tables)
def test_every_row_of_a_table_has_a_cell_for_every_column(table):
    bars = [line.replace(r"\|", "").count("|") for line in WRITERS[".md"](PAGE).splitlines()]
    assert bars.count(len(table.columns) + 1) >= len(table.rows) + 2
