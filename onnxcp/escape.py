"""Texts from files made harmless: for a terminal, and in Markdown.

Names in a model are any text: line separators, escape sequences, marks that turn the direction
of writing, markup. What is read by programs, as JSON, keeps them as they are.
"""

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import TypeVar

HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's categories of what shows as nothing, or acts
MARKS = re.compile(r"([\\`*\[\]<>|])")  # what Markdown or HTML would take for markup

Value = TypeVar("Value")


def visible(text: str) -> str:
    """A text in which every character shows: those that act are written as escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(c) if unicodedata.category(c) in HIDDEN else c for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def shown(value: Value) -> Value:
    """A record with every text in it made visible, at any depth."""
    return with_texts(value, visible)


def with_texts(value: Value, change: Callable[[str], str]) -> Value:
    """A record in which every text is changed, at any depth."""
    made: object = value
    if isinstance(value, str):
        made = change(value)
    elif isinstance(value, tuple | list):
        made = _container(value, change)
    elif isinstance(value, Mapping):
        pairs = {k: (with_texts(k, change), with_texts(v, change)) for k, v in value.items()}
        is_same = all(k is new and value[k] is v for k, (new, v) in pairs.items())
        made = value if is_same else dict(pairs.values())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        changed = {
            k: new for k, old in fields.items() if (new := with_texts(old, change)) is not old
        }
        made = dataclasses.replace(value, **changed) if changed else value
    return made  # type: ignore[return-value]


def _container(values: tuple[object, ...] | list[object], change: Callable[[str], str]) -> object:
    made = [with_texts(v, change) for v in values]
    if all(new is old for new, old in zip(made, values, strict=True)):
        return values
    return made if isinstance(values, list) else tuple(made)


def markdown(text: str) -> str:
    """A text that Markdown and HTML show as it is, in one line."""
    return MARKS.sub(r"\\\1", visible(text))


def code(text: str) -> str:
    """A text in a fixed pitch, where Markdown can say it so also in a table."""
    plain = visible(text)
    return markdown(text) if re.search(r"[`|<>]", plain) or not plain.strip() else f"`{plain}`"
