"""Named rows, imported when they are first used."""

import sys

import pytest

from onnxcp.options.table import Table

ROWS = {"decoder": "json.decoder:JSONDecoder", "plain": 3}


def test_a_row_is_what_its_text_names():
    from json.decoder import JSONDecoder

    assert Table(ROWS)["decoder"] is JSONDecoder


def test_names_are_listed_without_importing_a_row(tmp_path, monkeypatch):
    (tmp_path / "never_imported.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(str(tmp_path))
    table = Table({"row": "never_imported:ROW"})
    assert (list(table), "row" in table, len(table)) == (["row"], True, 1)
    assert "never_imported" not in sys.modules


def test_rows_keep_their_order():
    assert list(Table({"b": 1, "a": 2})) == ["b", "a"]


def test_a_row_may_be_added_and_taken_away():
    table = Table(ROWS)
    table["new"] = 4
    del table["plain"]
    assert dict(table)["new"] == 4 and "plain" not in table


def test_an_unknown_name_is_a_key_error():
    with pytest.raises(KeyError):
        Table(ROWS)["other"]
