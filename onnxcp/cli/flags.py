"""Options in texts as the flags that they are on the command line."""

import re
from typing import TypeVar

from onnxcp.errors import OPTION
from onnxcp.escape import with_texts

Value = TypeVar("Value")


def flag(name: str) -> str:
    """The flag of an option."""
    return f"--{name.replace('_', '-')}"


def as_flags(value: Value) -> Value:
    """A text, or a record with texts at any depth, whose options stand as flags: `--max-drop`,
    or `--max-drop 0.7`."""
    return with_texts(value, lambda text: OPTION.sub(_said, text))


def _said(match: re.Match[str]) -> str:
    return flag(match[1]) if match[2] is None else f"{flag(match[1])} {match[2]}"
