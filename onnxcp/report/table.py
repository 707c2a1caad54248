"""Pages: reports that do not have a format yet, as headline, facts and tables.

Every command turns its result into a `Page`, and every format is a function of a page, so that
each command can write each format.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class Kind(enum.Enum):
    """What the cells of a column hold."""

    NAME = "a name, shown in a fixed pitch"
    TEXT = "words"
    NUMBER = "numbers, aligned to the right"


@dataclass(frozen=True, slots=True)
class Column:
    """The title of a column, and the kind of its cells."""

    title: str
    kind: Kind = Kind.NUMBER


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of plain texts, one per column; `title` may be empty."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """The result of one command.

    `document` holds the whole result as plain values, for programs; the rest is for people.
    `command` is the command line, empty if there was none.
    """

    headline: str
    document: Any
    warnings: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    command: str = ""


def names(title: str) -> Column:
    """A column of names."""
    return Column(title, Kind.NAME)


def texts(title: str) -> Column:
    """A column of words."""
    return Column(title, Kind.TEXT)


def numbers(*titles: str) -> list[Column]:
    """Columns of numbers."""
    return [Column(title) for title in titles]
