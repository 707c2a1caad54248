"""Temporary files and folders; the next run removes those that a killed run left behind.

The process that creates one holds a lock on it (flock), which ends with the process. A file with
a name of this form that belongs to this user and is not locked was left by a dead process. If
the file system or platform does not support such locks, nothing is removed.
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
MAX_TRIES = 100  # at a free name


@contextlib.contextmanager
def folder(where: Path | None = None) -> Iterator[Path]:
    """A new folder, removed when the block ends.

    It is hidden in `where`. Without `where` it is in the system's temporary folder, from which
    leftovers of dead processes are removed first.
    """
    if where is None:
        where, name = Path(tempfile.gettempdir()), SHARED_FOLDER
        sweep(where, SHARED_NAME)
    else:
        name = HIDDEN_FOLDER
    path, lock = _created(where, name, lambda path: path.mkdir(mode=0o700))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        _released(lock)


@contextlib.contextmanager
def file(where: Path) -> Iterator[Path]:
    """A new, empty, hidden file in a folder; removed when the block ends unless it was moved."""
    path, lock = _created(where, HIDDEN_FILE, lambda path: path.touch(exist_ok=False))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        _released(lock)


def sweep(where: Path, names: re.Pattern[str] = NAME) -> None:
    """Remove temporary files and folders of dead processes from a folder."""
    for path in leftovers(where, names):
        sweep_one(path)


def sweep_one(path: Path, before: Callable[[Path], None] | None = None) -> None:
    """Remove a temporary file or folder unless its process is alive; `before` is called first."""
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
    """Temporary files and folders of this user in a folder, of dead and of running processes."""
    try:
        return sorted(p for p in where.iterdir() if names.fullmatch(p.name) and _is_own(p))
    except OSError:
        return []


def _is_own(path: Path) -> bool:
    """Whether a path is a file or folder of this user, and not a link."""
    if sys.platform == "win32":
        return False
    try:
        status = path.lstat()
    except OSError:
        return False
    is_plain = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    return is_plain and status.st_uid == os.geteuid()


def _created(where: Path, name: str, make: Callable[[Path], None]) -> tuple[Path, int | None]:
    """A new path and its lock; repeats if another process removed the path before it was locked."""
    for _ in range(MAX_TRIES):
        path = where / name.format(secrets.token_hex(8))
        with contextlib.suppress(FileExistsError):
            make(path)
            lock = _locked(path, wait=True)
            if path.exists():
                return path, lock
            _released(lock)
    raise FileExistsError(f"{where}: found no free name for a temporary file")


def _locked(path: Path, *, wait: bool = False) -> int | None:
    """The descriptor that holds the lock; None if another process holds it, or without locks."""
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
