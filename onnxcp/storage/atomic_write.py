"""Files that appear whole or not at all: the one way in which anything is written.

The bytes go to a temporary file in the same folder and to the disk; then the file takes its name
in one step, and so does the folder's entry of it. Without `overwrite` the step fails where
another file has come into being under that name, and that file stays.
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
    """A stream whose bytes are the file once the block ends; after an exception, nothing is.
    What knows its own hash, and can be made again, need not survive a power cut.

    Raises:
        FileExistsError: there is such a file, and `overwrite` is off.
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
    """Write a file. Raises as `whole` does."""
    with whole(path, overwrite=overwrite) as stream:
        stream.write(content)


def write_text(path: Path, text: str, *, overwrite: bool = True) -> None:
    """Write a file of UTF-8 text. Raises as `whole` does."""
    write_bytes(path, text.encode("utf-8"), overwrite=overwrite)


def take_name(staged: Path, path: Path, *, overwrite: bool) -> None:
    """Give a file of the same file system its name in one step; the old name is gone after it.

    Raises:
        FileExistsError: there is such a file, and `overwrite` is off.
    """
    if overwrite:
        with contextlib.suppress(OSError):
            staged.chmod(stat.S_IMODE(path.stat().st_mode))
        staged.replace(path)
    elif sys.platform == "win32":
        staged.rename(path)
    elif not linked(staged, path):
        path.touch(exist_ok=False)
        staged.replace(path)
    else:
        staged.unlink()


def linked(file: Path, name: Path) -> bool:
    """Give a file another name; False where the file system has no links.

    Raises:
        FileExistsError: the name is taken.
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


def copied(file: Path, name: Path) -> None:
    """A second name for a file, or where there are no links a copy of it."""
    if not linked(file, name):
        shutil.copy2(file, name)


def sync(path: Path) -> None:
    """See a file's bytes, or a folder's names, to the disk, where the system can."""
    if path.is_dir() and sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
