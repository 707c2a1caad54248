"""Cache keys: the hash of everything that a stored value depends on, including onnxcp's code.

A key names whole packages whose sources the value depends on: a list of modules would be
incomplete as soon as a module is split.
"""

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path

import numpy as np

PACKAGE = Path(__file__).parents[1]


def key(
    kind: str,
    code: Sequence[str],
    values: Mapping[str, object],
    arrays: Iterable[np.ndarray] = (),
) -> str:
    """The hash (64 hexadecimal digits) of a value's kind, code, settings and arrays.

    Args:
        kind: what is stored under the key, such as "fit".
        code: packages and modules of onnxcp, such as ("forms", "chain").
        values: settings by name: plain values, dataclasses, enumerations, paths and sequences.
        arrays: arrays that the value depends on, by content, in this order.

    Raises:
        TypeError: a value has no plain form.
        ValueError: a name in `code` is not a package or module of onnxcp.
    """
    text = json.dumps([kind, code_version(tuple(code)), _plain(values)], sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for array in arrays:
        digest.update(f"|{array.dtype}{array.shape}|".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@functools.cache
def code_version(code: tuple[str, ...], package: Path = PACKAGE) -> str:
    """The hash of the sources of packages and modules, by name below `package`.

    Raises:
        ValueError: a name is not a package or module.
    """
    digest = hashlib.sha256()
    for name in sorted(code):
        folder, module = package / name, package / f"{name}.py"
        sources = sorted(folder.rglob("*.py")) if folder.is_dir() else [module]
        if not sources or not sources[0].exists():
            raise ValueError(f"onnxcp has no package or module {name!r}")
        for source in sources:
            digest.update(f"|{source.relative_to(package).as_posix()}|".encode())
            digest.update(source.read_bytes())
    return digest.hexdigest()


def _plain(value: object) -> object:
    """A value as JSON, the same for equal values in every process."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Enum):
        return [type(value).__name__, value.name]
    if is_dataclass(value) and not isinstance(value, type):
        named = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return [type(value).__name__, named]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(content) for name, content in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    raise TypeError(f"a cache key cannot hold a {type(value).__name__}")
