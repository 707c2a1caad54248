"""Input statistics stored in a work folder, to be reused by a later run.

Their description is written last, with the hash of everything: damaged or incomplete statistics
count as missing, and are measured again.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onnxcp.fitting.statistics import Statistics
from onnxcp.storage import atomic_write
from onnxcp.storage.checksums import verified, with_checksum
from onnxcp.storage.read_errors import DAMAGED

NOTE, MEANS = "statistics.json", "means.npz"


def save_statistics(folder: Path, found: Mapping[str, Statistics]) -> None:
    """Describe the covariances in a folder, so that `load_statistics` can read them."""
    rows, means = dict[str, Any](), dict[str, Any]()
    for number, (tensor, one) in enumerate(found.items()):
        sites = list(one.means)
        means |= {f"{number}.{at}": one.means[site] for at, site in enumerate(sites)}
        rows[tensor] = {
            "number": number,
            "files": [path.name for path in one.covariances],
            "sha256": one.sha256,
            "sites": sites,
            "shares": list(one.shares),
        }
    with atomic_write.whole(folder / MEANS) as stream:
        np.savez(stream, **means)
    note = with_checksum({"tensors": rows, "means": _digest(means[name] for name in sorted(means))})
    atomic_write.write_text(folder / NOTE, json.dumps(note))


def load_statistics(folder: Path) -> dict[str, Statistics] | None:
    """The statistics in a folder; None if they are missing, incomplete or damaged."""
    try:
        note = verified(json.loads((folder / NOTE).read_text(encoding="utf-8")))
        with (folder / MEANS).open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            means = dict(stored)
        if _digest(means[name] for name in sorted(means)) != note["means"]:
            return None
        found = {tensor: _one(folder, row, means) for tensor, row in note["tensors"].items()}
        whole = all(_is_whole(one) for one in found.values())
    except DAMAGED:
        return None
    return found if whole else None


def _one(folder: Path, row: Mapping[str, Any], means: Mapping[str, np.ndarray]) -> Statistics:
    return Statistics(
        tuple(folder / name for name in row["files"]),
        row["sha256"],
        {site: means[f"{row['number']}.{at}"] for at, site in enumerate(row["sites"])},
        tuple(row["shares"]),
    )


def _is_whole(one: Statistics) -> bool:
    """Whether the covariances match the hash, which is of their numbers only."""
    digest = hashlib.sha256()
    for path in one.covariances:
        with path.open("rb") as stream:
            array = np.load(stream, allow_pickle=False)
        if array.dtype != np.float32 or array.ndim != 2 or len(set(array.shape)) != 1:
            return False
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest() == one.sha256


def _digest(arrays: Iterable[np.ndarray]) -> str:
    made = hashlib.sha256()
    for array in arrays:
        made.update(f"|{array.dtype}{array.shape}|".encode())
        made.update(np.ascontiguousarray(array).tobytes())
    return made.hexdigest()
