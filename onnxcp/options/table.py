"""Named rows to choose from, as forms or strategies; listing the names imports none of them."""

import importlib
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TypeVar, cast

Row = TypeVar("Row")


class Table(MutableMapping[str, Row]):
    """Rows by name, in order. A row may stand as "module:name"; it is imported when it is
    first asked for."""

    def __init__(self, rows: Mapping[str, str | Row]) -> None:
        self._rows = dict(rows)

    def __getitem__(self, name: str) -> Row:
        row = self._rows[name]
        if isinstance(row, str):
            module, _, attribute = row.partition(":")
            row = self._rows[name] = cast(
                "Row", getattr(importlib.import_module(module), attribute)
            )
        return row

    def __setitem__(self, name: str, row: Row | str) -> None:
        self._rows[name] = row

    def __delitem__(self, name: str) -> None:
        del self._rows[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rows  # without importing the row

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
