"""Records out of plain values, as JSON gives them: every field is of the type that it states."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec


def from_plain(kind: Any, value: Any) -> Any:
    """A value of a type: a dataclass of a mapping, a tuple of a list, and what these hold.

    A whole number is taken for a float, and neither a truth value nor NaN for a number.

    Raises:
        TypeError: the value, or one within, is of another type; a field is missing or unknown.
        ValueError: a number is not finite.
    """
    try:
        made = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise TypeError(str(error)) from error
    _refuse_unknown(value, msgspec.to_builtins(made))
    return made


def _refuse_unknown(value: Any, taken: Any) -> None:
    """Raises where the value holds what the record made of it does not, which msgspec passes
    over in dataclasses, or numbers that are not finite."""
    if isinstance(value, Mapping):
        unknown = sorted(map(str, value.keys() - taken.keys()))
        if unknown:
            raise TypeError(f"unknown fields: {', '.join(unknown)}")
        for name, part in value.items():
            _refuse_unknown(part, taken[name])
    elif isinstance(value, list | tuple):
        for part, kept in zip(value, taken, strict=True):
            _refuse_unknown(part, kept)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value!r} is not finite")
