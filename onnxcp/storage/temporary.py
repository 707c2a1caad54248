"""Temporary files and folders, swept by the next run where a killed one left them.

Whoever makes one holds a lock on it (flock), which ends with the process, however it ends. What
has a name of ours, belongs to this user and is not locked was left by a process that is dead.
Where a file system or a platform knows no such locks nothing is swept.
"""

import contextlib
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

NAME = re.compile(r"\.onnxcp-[0-9a-f]{16}\.(tmp|part)")
SHARED_NAME = re.compile(r"onnxcp-[0-9a-f]{16}\.tmp")
HIDDEN_FOLDER, HIDDEN_FILE = ".onnxcp-{}.tmp", ".onnxcp-{}.part"
SHARED_FOLDER = "onnxcp-{}.tmp"  # in the system's folder for temporary files
TRIES = 100


@contextlib.contextmanager
def folder(where: Path | None = None) -> Iterator[Path]:
    """A folder that is gone when the block ends: in `where`, hidden, or else in the system's
    folder for temporary files, from which what dead processes left is removed first."""
    if where is None:
        where, name = Path(tempfile.gettempdir()), SHARED_FOLDER
        sweep(where, SHARED_NAME)
    else:
        name = HIDDEN_FOLDER
    path, lock = _made(where, name, lambda path: path.mkdir(mode=0o700))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        _released(lock)


@contextlib.contextmanager
def file(where: Path) -> Iterator[Path]:
    """An empty file in a folder, hidden; gone when the block ends unless it was moved away."""
    path, lock = _made(where, HIDDEN_FILE, lambda path: path.touch(exist_ok=False))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        _released(lock)


def sweep(where: Path, names: re.Pattern[str] = NAME) -> None:
    """Remove what dead processes left in a folder."""
    for path in leftovers(where, names):
        sweep_one(path)


def sweep_one(path: Path, before: Callable[[Path], None] | None = None) -> None:
    """Remove something of ours, unless the process that made it is alive; `before` is called
    with it first."""
    lock = _locked(path)
    if lock is None:
        return
    with contextlib.suppress(OSError):
        if before is not None:
            before(path)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    _released(lock)


def leftovers(where: Path, names: re.Pattern[str] = NAME) -> list[Path]:
    """What has a name of ours in a folder and is this user's: of dead processes or living."""
    try:
        return sorted(p for p in where.iterdir() if names.fullmatch(p.name) and _mine(p))
    except OSError:
        return []


def _mine(path: Path) -> bool:
    """Whether it is a file or a folder, and no link, of this user."""
    if sys.platform == "win32":
        return False
    try:
        about = path.lstat()
    except OSError:
        return False
    is_plain = stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)
    return is_plain and about.st_uid == os.geteuid()


def _made(where: Path, name: str, make: Callable[[Path], None]) -> tuple[Path, int | None]:
    """Something new and locked, which no sweep has taken for left between the two."""
    for _ in range(TRIES):
        path = where / name.format(secrets.token_hex(8))
        with contextlib.suppress(FileExistsError):
            make(path)
            lock = _locked(path, wait=True)
            if path.exists():
                return path, lock
            _released(lock)
    raise FileExistsError(f"{where}: no name for a temporary file is free")


def _locked(path: Path, *, wait: bool = False) -> int | None:
    """The descriptor that holds the lock; None where another one does, or there are no locks."""
    if sys.platform == "win32":
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _released(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)
