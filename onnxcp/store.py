"""Fits kept on disk under the hash of all they depend on, so that none is computed twice.

An entry is an .npz file that names its own key and the checksum of its arrays. One that is
damaged, or was put there by something else, is as good as none: it is computed again and
overwritten. A folder that can not be written to costs nothing but the time saved.
"""

import contextlib
import functools
import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxcp import forms
from onnxcp.forms import Fit, Outcome

LIMIT = 4 * 2**30  # bytes in a folder; the entries not used for longest go first
UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """The fits of a layer's groups, ‖K‖² of these, and the seconds the fits took."""

    fits: tuple[Fit, ...]
    energies: tuple[float, ...]
    seconds: float


def default_folder(environment: Mapping[str, str]) -> Path:
    """$ONNXCP_CACHE, else onnxcp in the user's cache folder."""
    if environment.get("ONNXCP_CACHE"):
        return Path(environment["ONNXCP_CACHE"])
    base = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "onnxcp"


@functools.cache
def version() -> str:
    """Of the code that fits: other code, other fits."""
    digest = hashlib.sha256()
    for path in sorted(Path(forms.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def key_of(arrays: Iterable[np.ndarray], settings: str) -> str:
    """Of everything that a fit depends on: arrays by their content, the rest as text."""
    digest = hashlib.sha256(f"{version()}|{settings}".encode())
    for array in arrays:
        digest.update(f"|{array.dtype}{array.shape}|".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def load(folder: Path, key: str) -> Entry | None:
    """The entry of a key; None where there is none that can be trusted."""
    path = _path(folder, key)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files if name != "about"}
            about = json.loads(str(stored["about"]))
        if about["key"] != key or about["checksum"] != _checksum(arrays):
            return None
        entry = _entry(about, arrays)
    except UNREADABLE:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return entry


def save(folder: Path, key: str, entry: Entry) -> None:
    """Keep an entry, whole or not at all."""
    arrays = {
        f"{group}.{number}": np.asarray(factor)
        for group, fit in enumerate(entry.fits)
        for number, factor in enumerate(fit.factors)
    }
    about = {
        "key": key,
        "checksum": _checksum(arrays),
        "seconds": entry.seconds,
        "energies": entry.energies,
        "fits": [_described(fit) for fit in entry.fits],
    }
    path = _path(folder, key)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            try:
                np.savez(file, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]
                file.close()
                Path(file.name).replace(path)
            finally:
                Path(file.name).unlink(missing_ok=True)


def load_note(folder: Path, key: str) -> Any:
    """What was noted under a key; None where there is nothing that can be read."""
    try:
        note = json.loads(_path(folder, key, "json").read_text(encoding="utf-8"))
        return note["note"] if note["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_note(folder: Path, key: str, note: Any) -> None:
    """Note plain values under a key, whole or not at all."""
    path = _path(folder, key, "json")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=".part", delete=False
        ) as file:
            try:
                json.dump({"key": key, "note": note}, file)
                file.close()
                Path(file.name).replace(path)
            finally:
                Path(file.name).unlink(missing_ok=True)


def prune(folder: Path, limit: int = LIMIT) -> None:
    """Drop the entries not used for longest until the folder holds at most `limit` bytes."""
    with contextlib.suppress(OSError):
        found = sorted((p.stat().st_mtime, p.stat().st_size, p) for p in folder.glob("??/*.*"))
        total = sum(size for _, size, _ in found)
        for _, size, path in found:
            if total <= limit:
                break
            path.unlink(missing_ok=True)
            total -= size


def _path(folder: Path, key: str, suffix: str = "npz") -> Path:
    return folder / key[:2] / f"{key}.{suffix}"


def _described(fit: Fit) -> dict[str, Any]:
    return {
        "form": fit.form,
        "factors": len(fit.factors),
        "error": fit.error,
        "sensitivity_before": fit.sensitivity_before,
        "sensitivity_after": fit.sensitivity_after,
        "outcome": fit.outcome.name,
        "sweeps": fit.sweeps,
    }


def _entry(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Entry:
    fits = []
    for group, row in enumerate(about["fits"]):
        factors = tuple(arrays[f"{group}.{number}"] for number in range(row["factors"]))
        fits.append(Fit(**{**row, "factors": factors, "outcome": Outcome[row["outcome"]]}))
    return Entry(tuple(fits), tuple(about["energies"]), float(about["seconds"]))


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"|{name}{arrays[name].dtype}{arrays[name].shape}|".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
