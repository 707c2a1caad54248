"""Arrays in .npz and .npy files; only the rows that are needed are read.

Archives up to `MAX_WHOLE_BYTES` are read whole, which checks them for damage. In larger ones,
uncompressed arrays (`numpy.savez`) are memory-mapped, and only the first rows of compressed
arrays are unpacked.
"""

import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.lib import format as npy

from onnxcp.errors import DataError

MAX_WHOLE_BYTES = 2**28  # of all arrays, unpacked: smaller archives are read whole
LOCAL_HEADER, NAME_LENGTH = 30, 26  # bytes before a member's name; offset of the name's length
DAMAGED = (EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, tokenize.TokenError)


def read_npz(path: Path, limit: int) -> Mapping[str, np.ndarray]:
    """The arrays of an archive by name; large archives give at least the first `limit` rows.

    Raises:
        DataError: the file is not an .npz, is damaged, or does not fit into memory.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not a zip archive, or it is truncated")
        with zipfile.ZipFile(path) as archive:
            if sum(m.file_size for m in archive.infolist()) > MAX_WHOLE_BYTES:
                return _large(path, archive, limit)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: np.asanyarray(arrays[name]) for name in arrays.files}
    except (ValueError, OSError, *DAMAGED) as error:
        raise DataError(
            f"{path}: not a readable .npz of plain arrays: {error}; write it with numpy.savez"
        ) from error


def read_npy(path: Path) -> np.ndarray:
    """The array in a file, memory-mapped.

    Raises:
        DataError: the file is not a readable .npy.
    """
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, *DAMAGED) as error:
        raise DataError(
            f"{path}: not a readable .npy of a plain array: {error}; write it with numpy.save"
        ) from error
    return array


def _large(path: Path, archive: zipfile.ZipFile, limit: int) -> dict[str, np.ndarray]:
    """All arrays; those with as many rows as the largest are cut to the first `limit` rows."""
    members = {m.filename: _Member.of(archive, m) for m in archive.infolist()}
    largest = max(members.values(), key=lambda member: member.info.file_size)
    return {
        name.removesuffix(".npy"): member.rows(
            path, archive, limit if member.shape[:1] == largest.shape[:1] else None
        )
        for name, member in members.items()
    }


@dataclass(frozen=True, slots=True)
class _Member:
    """An array in an archive, as its header states it; `start` is the offset of its values."""

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype
    start: int

    @classmethod
    def of(cls, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> "_Member":
        with archive.open(info) as stream:
            shape, is_fortran, dtype = _header(stream)
            if dtype.hasobject:
                raise ValueError(
                    f"{info.filename} holds Python objects, which only allow_pickle could read"
                )
            return cls(info, shape, is_fortran, dtype, stream.tell())

    def rows(self, path: Path, archive: zipfile.ZipFile, limit: int | None) -> np.ndarray:
        """The first `limit` rows, all for None: memory-mapped if uncompressed, else unpacked."""
        if self.info.compress_type == zipfile.ZIP_STORED and 0 not in self.shape:
            return self._mapped(path)[:limit] if self.shape else self._mapped(path)
        shape = self.shape
        if shape and limit is not None and not self.is_fortran:
            shape = (min(limit, shape[0]), *shape[1:])
        size = math.prod(shape) * self.dtype.itemsize
        _refuse_large(self.info, size)
        with archive.open(self.info) as stream:
            stream.read(self.start)
            content = stream.read(size)
        if len(content) < size:
            raise EOFError(f"{self.info.filename} is cut short")
        values = np.frombuffer(content, self.dtype).reshape(shape, order=self._order)
        return values[:limit] if shape else values

    def _mapped(self, path: Path) -> np.ndarray:
        offset = _offset(path, self.info) + self.start
        return np.memmap(path, self.dtype, "r", offset, self.shape, self._order)

    @property
    def _order(self) -> Literal["F", "C"]:
        return "F" if self.is_fortran else "C"


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    header: tuple[tuple[int, ...], bool, np.dtype] = read(stream)
    return header


def _offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Offset of a member's bytes in the file.

    Read from the local header: its name and extra field can be longer than those in the
    archive's directory.
    """
    with path.open("rb") as file:
        file.seek(member.header_offset + NAME_LENGTH)
        lengths = file.read(4)
    name, extra = (int.from_bytes(lengths[k : k + 2], "little") for k in (0, 2))
    return member.header_offset + LOCAL_HEADER + name + extra


def _refuse_large(member: zipfile.ZipInfo, size: int) -> None:
    """Raises ValueError if unpacking would take more than half of the memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory // 2:
        raise ValueError(
            f"{member.filename} unpacks to {size / 1e9:.1f} GB, and this machine has "
            f"{memory / 1e9:.1f} GB; give <<samples=N>>, or store it without compression"
        )
