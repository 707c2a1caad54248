"""Records out of plain values, as JSON gives them: every field is of the type that it states."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


def from_plain(kind: Any, value: Any) -> Any:
    """A value of a type: a dataclass of a mapping, a tuple of a list, and what these hold.

    A whole number is taken for a float, and neither a truth value nor NaN for a number.

    Raises:
        TypeError: the value, or one within, is of another type; a field is missing or unknown.
        ValueError: a number is not finite.
        OverflowError: a whole number beyond any float.
    """
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        return _one_of(get_args(kind), value)
    if is_dataclass(kind):
        return _record(kind, value)
    if origin is tuple:
        return _items(get_args(kind), value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(get_args(kind), value)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind}")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{value!r} is not finite")
    return value


def _one_of(kinds: tuple[Any, ...], value: Any) -> Any:
    """Of a type or None."""
    if value is None and type(None) in kinds:
        return None
    (kind,) = (k for k in kinds if k is not type(None))
    return from_plain(kind, value)


def _record(kind: Any, value: Any) -> Any:
    kinds = _types(kind)
    stated = {f.name: f for f in fields(kind) if f.init}
    found = _mapping((str, Any), value)
    unknown = found.keys() - stated.keys()
    missing = [n for n, f in stated.items() if n not in found and not _has_default(f)]
    if unknown or missing:
        raise TypeError(f"{kind.__name__}: unknown {sorted(unknown)}, missing {missing}")
    return kind(**{name: from_plain(kinds[name], part) for name, part in found.items()})


def _has_default(field: Any) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _items(kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{value!r} is no list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(from_plain(kinds[0], part) for part in value)
    if len(kinds) != len(value):
        raise TypeError(f"{value!r} is no list of {len(kinds)}")
    return tuple(from_plain(k, part) for k, part in zip(kinds, value, strict=True))


def _mapping(kinds: tuple[Any, ...], value: Any) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r} is no mapping")
    name, part = kinds
    return {from_plain(name, key): from_plain(part, held) for key, held in value.items()}


@lru_cache
def _types(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
