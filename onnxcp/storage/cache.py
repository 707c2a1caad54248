"""The cache folder: entries stored under the hash of all that they depend on (`storage.keys`).

An entry names its own key and the checksum of its content. A damaged entry, or one put there by
another program, counts as missing: it is computed again and overwritten. A folder that cannot be
written to costs nothing but the time saved.
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
LIMIT = 4 * 2**30  # bytes in a folder; the entries not used for longest go first


def default_folder(environment: Mapping[str, str]) -> Path:
    """$ONNXCP_CACHE, else onnxcp in the user's cache folder."""
    if environment.get("ONNXCP_CACHE"):
        return Path(environment["ONNXCP_CACHE"])
    base = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "onnxcp"


def load_note(folder: Path, key: str) -> Any:
    """What was noted under a key; None where there is nothing that can be read."""
    try:
        note = verified(json.loads(path_of(folder, key, "json").read_text(encoding="utf-8")))
        return note["note"] if note["key"] == key else None
    except DAMAGED:
        return None


def save_note(folder: Path, key: str, note: Any) -> None:
    """Note plain values under a key, whole or not at all."""
    path = path_of(folder, key, "json")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write.whole(path, survives_power_cut=False) as file:
            file.write(json.dumps(with_checksum({"key": key, "note": note})).encode())


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


def path_of(folder: Path, key: str, suffix: str = "npz") -> Path:
    """Where the entry of a key lies, whether or not there is one."""
    return folder / key[:2] / f"{key}.{suffix}"
