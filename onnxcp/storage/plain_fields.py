"""Records built from JSON values; every field is checked against its type."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec


def from_plain(kind: Any, value: Any) -> Any:
    """A plain value as the type `kind`: a mapping as a dataclass, a list as a tuple, and so on.

    A whole number is accepted as a float; a truth value or NaN is not accepted as a number.

    Raises:
        TypeError: a value has the wrong type, or a field is missing or unknown.
        ValueError: a number is not finite.
    """
    try:
        record = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise TypeError(str(error)) from error
    _refuse_unknown(value, msgspec.to_builtins(record))
    return record


def _refuse_unknown(value: Any, converted: Any) -> None:
    """Raises for fields that the record does not have, and for numbers that are not finite.

    msgspec ignores unknown fields of dataclasses.
    """
    if isinstance(value, Mapping):
        unknown = sorted(map(str, value.keys() - converted.keys()))
        if unknown:
            raise TypeError(f"unknown fields: {', '.join(unknown)}")
        for name, part in value.items():
            _refuse_unknown(part, converted[name])
    elif isinstance(value, list | tuple):
        for part, converted_part in zip(value, converted, strict=True):
            _refuse_unknown(part, converted_part)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value!r} is not finite")
