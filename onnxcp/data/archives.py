"""Arrays in .npz and .npy files, of which only the rows that are asked for are read.

Small archives are read whole, which checks them for damage. In large ones arrays that are stored
as they are (`numpy.savez`) are mapped, and of compressed ones only the first rows are unpacked
where no more are needed.
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

LARGE = 2**28  # bytes of all arrays: less is read whole
LOCAL_HEADER, NAME_LENGTH = 30, 26  # bytes before a member's name, and where its length stands
DAMAGED = (EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, tokenize.TokenError)


def read_npz(path: Path, most: int) -> Mapping[str, np.ndarray]:
    """The arrays of an archive, of those in large ones at least their first `most` rows.

    Raises:
        DataError: not such an archive, damaged, or larger than the memory.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no archive, or a truncated one")
        with zipfile.ZipFile(path) as archive:
            if sum(m.file_size for m in archive.infolist()) > LARGE:
                return _large(path, archive, most)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: np.asanyarray(arrays[name]) for name in arrays.files}
    except (ValueError, OSError, *DAMAGED) as error:
        raise DataError(
            f"{path}: not a readable .npz of plain arrays: {error}; write it with numpy.savez"
        ) from error


def read_npy(path: Path) -> np.ndarray:
    """The array in a file, mapped.

    Raises:
        DataError: not such a file.
    """
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, *DAMAGED) as error:
        raise DataError(
            f"{path}: not a readable .npy of a plain array: {error}; write it with numpy.save"
        ) from error
    return array


def _large(path: Path, archive: zipfile.ZipFile, most: int) -> dict[str, np.ndarray]:
    """Of arrays with as many rows as the largest the first ones, of others all."""
    found = {m.filename: _Member.of(archive, m) for m in archive.infolist()}
    largest = max(found.values(), key=lambda member: member.info.file_size)
    return {
        name.removesuffix(".npy"): member.rows(
            path, archive, most if member.shape[:1] == largest.shape[:1] else None
        )
        for name, member in found.items()
    }


@dataclass(frozen=True, slots=True)
class _Member:
    """An array in an archive, by its header; its values begin at `start` of its bytes."""

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
                raise ValueError(f"{info.filename} holds objects, which allow_pickle would run")
            return cls(info, shape, is_fortran, dtype, stream.tell())

    def rows(self, path: Path, archive: zipfile.ZipFile, most: int | None) -> np.ndarray:
        """The first rows: mapped where they are stored as they are, else unpacked."""
        if self.info.compress_type == zipfile.ZIP_STORED and 0 not in self.shape:
            return self._mapped(path)[:most] if self.shape else self._mapped(path)
        shape = self.shape
        if shape and most is not None and not self.is_fortran:
            shape = (min(most, shape[0]), *shape[1:])
        size = math.prod(shape) * self.dtype.itemsize
        _refuse_vast(self.info, size)
        with archive.open(self.info) as stream:
            stream.read(self.start)
            held = stream.read(size)
        if len(held) < size:
            raise EOFError(f"{self.info.filename} is cut short")
        values = np.frombuffer(held, self.dtype).reshape(shape, order=self._order)
        return values[:most] if shape else values

    def _mapped(self, path: Path) -> np.ndarray:
        offset = _offset(path, self.info) + self.start
        return np.memmap(path, self.dtype, "r", offset, self.shape, self._order)

    @property
    def _order(self) -> Literal["F", "C"]:
        return "F" if self.is_fortran else "C"


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    found: tuple[tuple[int, ...], bool, np.dtype] = read(stream)
    return found


def _offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: behind its header, whose name and extra field may be longer
    than those in the archive's directory."""
    with path.open("rb") as file:
        file.seek(member.header_offset + NAME_LENGTH)
        lengths = file.read(4)
    name, extra = (int.from_bytes(lengths[k : k + 2], "little") for k in (0, 2))
    return member.header_offset + LOCAL_HEADER + name + extra


def _refuse_vast(member: zipfile.ZipInfo, size: int) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory // 2:
        raise ValueError(
            f"{member.filename} unpacks to {size / 1e9:.1f} GB, this machine has "
            f"{memory / 1e9:.1f}; give --samples N, or store it without compression"
        )
