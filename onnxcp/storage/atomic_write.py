"""Atomic writing: a file appears whole or not at all. All files are written this way.

The bytes go to a temporary file in the same folder and are flushed to the disk; then the file is
renamed in one step, and the folder is flushed. Without `overwrite` that step fails if another
program has created the file meanwhile, and that file stays.
"""

import contextlib
import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from onnxcp.storage import temporary

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


@contextlib.contextmanager
def whole(
    path: Path, *, overwrite: bool = True, survives_power_cut: bool = True
) -> Iterator[BinaryIO]:
    """A stream; its bytes become the file when the block ends, and are dropped by an exception.

    Without `survives_power_cut` the bytes are not flushed to the disk: for files that carry a
    checksum and can be computed again.

    Raises:
        FileExistsError: the file exists and `overwrite` is off.
        OSError: the disk is full, or the folder cannot be written to.
    """
    with temporary.file(path.parent) as partial:
        with partial.open("wb") as stream:
            yield stream
            if survives_power_cut:
                stream.flush()
                os.fsync(stream.fileno())
        take_name(partial, path, overwrite=overwrite)
        if survives_power_cut:
            sync(path.parent)


def write_bytes(path: Path, content: bytes, *, overwrite: bool = True) -> None:
    """Write a file atomically. Raises what `whole` does."""
    with whole(path, overwrite=overwrite) as stream:
        stream.write(content)


def write_text(path: Path, text: str, *, overwrite: bool = True) -> None:
    """Write a file of UTF-8 text atomically. Raises what `whole` does."""
    write_bytes(path, text.encode("utf-8"), overwrite=overwrite)


def take_name(staged: Path, path: Path, *, overwrite: bool) -> None:
    """Rename a file within a file system in one step; keeps the mode of a file it replaces.

    Raises:
        FileExistsError: the target exists and `overwrite` is off.
    """
    if overwrite:
        with contextlib.suppress(OSError):
            staged.chmod(stat.S_IMODE(path.stat().st_mode))
        staged.replace(path)
    elif sys.platform == "win32":
        staged.rename(path)
    elif not hard_linked(staged, path):
        path.touch(exist_ok=False)
        staged.replace(path)
    else:
        staged.unlink()


def hard_linked(file: Path, name: Path) -> bool:
    """Give a file a second name; False if the file system does not support hard links.

    Raises:
        FileExistsError: the name exists.
    """
    try:
        name.hardlink_to(file)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LINKS:
            raise
        return False
    return True


def link_or_copy(file: Path, name: Path) -> None:
    """Give a file a second name; copy it if the file system does not support hard links."""
    if not hard_linked(file, name):
        shutil.copy2(file, name)


def sync(path: Path) -> None:
    """Flush a file's bytes, or a folder's names, to the disk, if the system supports it."""
    if path.is_dir() and sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
