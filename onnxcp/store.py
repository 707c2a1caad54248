"""Fits kept on disk under the hash of all they depend on, so that none is computed twice.

An entry is an .npz file that names its own key and the checksum of all that is in it. One that is
damaged, or was put there by something else, is as good as none: it is computed again and
overwritten. A folder that can not be written to costs nothing but the time saved.
"""

import contextlib
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxcp import atomic_write, forms, temporary
from onnxcp.checksums import opened, sealed
from onnxcp.damage import DAMAGED
from onnxcp.forms import Fit, Outcome

ENTRY = re.compile(r"[0-9a-f]{64}\.(npz|json)")
LIMIT = 4 * 2**30  # bytes in a folder; the entries not used for longest go first


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
        if about["key"] != key or about.pop("checksum") != _checksum(arrays, about):
            return None
        entry = _entry(about, arrays)
    except DAMAGED:
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
    about: dict[str, Any] = {
        "key": key,
        "seconds": entry.seconds,
        "energies": entry.energies,
        "fits": [_described(fit) for fit in entry.fits],
    }
    about["checksum"] = _checksum(arrays, about)
    path = _path(folder, key)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write.whole(path, survives_power_cut=False) as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]


def load_note(folder: Path, key: str) -> Any:
    """What was noted under a key; None where there is nothing that can be read."""
    try:
        note = opened(json.loads(_path(folder, key, "json").read_text(encoding="utf-8")))
        return note["note"] if note["key"] == key else None
    except DAMAGED:
        return None


def save_note(folder: Path, key: str, note: Any) -> None:
    """Note plain values under a key, whole or not at all."""
    path = _path(folder, key, "json")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write.whole(path, survives_power_cut=False) as file:
            file.write(json.dumps(sealed({"key": key, "note": note})).encode())


def prune(folder: Path, limit: int = LIMIT) -> None:
    """Drop the entries not used for longest until the folder holds at most `limit` bytes, and
    what killed runs left half written; nothing that is not an entry."""
    with contextlib.suppress(OSError):
        for below in folder.glob("??"):
            temporary.sweep(below)
        entries = [p for p in folder.glob("??/*.*") if ENTRY.fullmatch(p.name)]
        found = sorted((p.stat().st_mtime, p.stat().st_size, p) for p in entries)
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


def _checksum(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(f"|{name}{arrays[name].dtype}{arrays[name].shape}|".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
