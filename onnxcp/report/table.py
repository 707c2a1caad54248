"""A report before it has a format: what a command did, as a headline, facts and tables.

Every command makes a `Page` of its result, and every format is a function of a page, so that each
command writes each format.
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
    """The head of a column, and what stands below it."""

    title: str
    kind: Kind = Kind.NUMBER


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of plain texts, as many in each as there are columns; `title` may be empty."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """The result of one command. `document` holds all of it as plain values, for programs; the
    rest is for people. `command` is the command line that it is of, where there was one."""

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
