"""Fits in the cache, so that none is computed twice.

An entry is an .npz file that holds its own key and a checksum of its content. A damaged entry, or
one that another program put there, counts as missing: it is computed again and overwritten.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxcp.forms import Fit, Outcome
from onnxcp.storage import atomic_write
from onnxcp.storage.cache import path_of
from onnxcp.storage.read_errors import DAMAGED


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """The fits of a layer's groups, their ‖K‖², and the seconds that the fits took."""

    fits: tuple[Fit, ...]
    energies: tuple[float, ...]
    seconds: float


def load(folder: Path, key: str) -> Entry | None:
    """The entry of a key; None if it is missing or damaged."""
    path = path_of(folder, key)
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
    """Store an entry atomically."""
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
    path = path_of(folder, key)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write.whole(path, survives_power_cut=False) as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]


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
