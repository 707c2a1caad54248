"""The cache folder: entries stored under the hash of all that they depend on (`storage.keys`).

An entry holds its own key and a checksum of its content. A damaged entry, or one that another
program put there, counts as missing: it is computed again and overwritten. If the folder cannot
be written to, nothing is cached and nothing fails.
"""

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxcp.storage import atomic_write, temporary
from onnxcp.storage.checksums import verified, with_checksum
from onnxcp.storage.read_errors import DAMAGED

ENTRY = re.compile(r"[0-9a-f]{64}\.(npz|json)")
MAX_BYTES = 4 * 2**30  # in a folder; the least recently used entries are removed first


def default_folder(environment: Mapping[str, str]) -> Path:
    """$ONNXCP_CACHE, else `onnxcp` in the user's cache folder; it may not exist yet."""
    if environment.get("ONNXCP_CACHE"):
        return Path(environment["ONNXCP_CACHE"])
    base = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "onnxcp"


def load_note(folder: Path, key: str) -> Any:
    """The plain values stored under a key; None if there is no readable entry."""
    try:
        note = verified(json.loads(path_of(folder, key, "json").read_text(encoding="utf-8")))
        return note["note"] if note["key"] == key else None
    except DAMAGED:
        return None


def save_note(folder: Path, key: str, note: Any) -> None:
    """Store plain values under a key; does nothing if the folder cannot be written to."""
    path = path_of(folder, key, "json")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write.whole(path, survives_power_cut=False) as file:
            file.write(json.dumps(with_checksum({"key": key, "note": note})).encode())


def prune(folder: Path, limit: int = MAX_BYTES) -> None:
    """Remove the least recently used entries until at most `limit` bytes are left.

    Also removes temporary files of killed runs. Other files are neither counted nor removed.
    """
    with contextlib.suppress(OSError):
        for subfolder in folder.glob("??"):
            temporary.sweep(subfolder)
        entries = [p for p in folder.glob("??/*.*") if ENTRY.fullmatch(p.name)]
        by_age = sorted((p.stat().st_mtime, p.stat().st_size, p) for p in entries)
        total = sum(size for _, size, _ in by_age)
        for _, size, path in by_age:
            if total <= limit:
                break
            path.unlink(missing_ok=True)
            total -= size


def path_of(folder: Path, key: str, suffix: str = "npz") -> Path:
    """The path of a key's entry, whether or not it exists."""
    return folder / key[:2] / f"{key}.{suffix}"
