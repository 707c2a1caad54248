"""Checks before any work: the run can write its output files, and none of them is an input.

Files are compared by identity, not by name: a symbolic or hard link to an input is that input.
Outputs are regular files; a link, device, FIFO, socket or folder in their place is refused.
"""

import contextlib
import importlib.util
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from onnxcp.artifacts.publishing import recover
from onnxcp.data.specs import parse_spec, samples_path
from onnxcp.errors import OutputError
from onnxcp.graph.data_file_names import data_file
from onnxcp.graph.external_data import locations
from onnxcp.storage import temporary

Identity = tuple[int, int]  # device and inode
KINDS = {
    stat.S_IFLNK: "is a symbolic link",
    stat.S_IFDIR: "is a folder",
    stat.S_IFCHR: "is a device",
    stat.S_IFBLK: "is a device",
    stat.S_IFIFO: "is a FIFO",
    stat.S_IFSOCK: "is a socket",
}
CODE = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_]\w*(:\w+)?")  # module:function


@dataclass(frozen=True, slots=True)
class Reads:
    """The inputs of a run.

    Models include their external data. `samples` are SPECs; a folder includes everything in it.
    `others` are further files or SPECs; None is ignored.
    """

    models: tuple[Path, ...] = ()
    samples: tuple[str, ...] = ()
    others: tuple[Path | str | None, ...] = ()

    def files(self) -> Iterator[Path]:
        """Every file that exists among the inputs."""
        for model in self.models:
            yield model
            yield from _data_of(model)
        for source in (*self.samples, *self.others):
            if source is not None:
                with contextlib.suppress(OSError, ValueError):  # a name that no file can have
                    yield from _files_of(str(source))


def model_files(output: Path) -> tuple[Path, ...]:
    """The files that are written for a model: the model and its external data.

    Raises:
        OutputError: something that is not a regular file is in the model's place.
    """
    _refuse_irregular(output)
    return output, data_file(output)


def reserve(outputs: Sequence[Path], reads: Reads, *, overwrite: bool = False) -> None:
    """Check that a run can write its outputs; removes leftovers of killed runs beside them.

    Raises:
        OutputError: an output exists and `overwrite` is off, is not a regular file, is an input
            of the run, is named twice, or its folder is missing or not writable.
    """
    recover(path.parent for path in outputs)
    names: set[tuple[Path, str]] = set()
    for path in outputs:
        name = _resolved(path)
        if name in names:
            raise OutputError(f"{path}: this run writes that file already; choose another name")
        names.add(name)
    for path in outputs:
        _refuse_irregular(path)
    _refuse_read(outputs, reads)
    for path in outputs:
        if path.exists() and not overwrite:
            raise OutputError(f"{path}: exists; choose another name or pass <<overwrite>>")
        _refuse_unwritable(path)


def reserve_folder(folder: Path, *, overwrite: bool) -> None:
    """Create a folder for outputs if needed, and check that it may be used.

    Raises:
        OutputError: it is not empty and `overwrite` is off, or it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        recover([folder])
        is_empty = not any(folder.iterdir())
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror}; name a folder you can write to") from error
    if not is_empty and not overwrite:
        raise OutputError(f"{folder}: not empty; name another or pass <<overwrite>>")


def _resolved(path: Path) -> tuple[Path, str]:
    """The resolved folder and the name in it, which may be a link."""
    try:
        return path.parent.resolve(), path.name
    except (OSError, RuntimeError):
        return path.parent.absolute(), path.name


def _refuse_irregular(path: Path) -> None:
    """Raises OutputError if the path exists and is not a regular file."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(mode):
        what = KINDS.get(stat.S_IFMT(mode), "is not a regular file")
        raise OutputError(f"{path}: {what}; name a file")


def _refuse_read(outputs: Sequence[Path], reads: Reads) -> None:
    """Raises OutputError for an output that is an input of the run."""
    written = {_identity(path): path for path in outputs if path.exists()}
    if not written:
        return
    for read in reads.files():
        path = written.get(_identity(read))
        if path is not None:
            also = "" if path == read else f", as {read}"
            raise OutputError(f"{path}: this run reads that file{also}; choose another name")


def _identity(path: Path) -> Identity | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _refuse_unwritable(path: Path) -> None:
    try:
        with temporary.file(path.parent):
            pass
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {error.strerror}; name a folder you can write to"
        ) from error


def _data_of(model: Path) -> Iterator[Path]:
    """Files of a model's external data; none if the model cannot be read, as reported later."""
    if not model.is_file():
        return
    try:
        proto = onnx.load(str(model), format="protobuf", load_external_data=False)
    except (OSError, DecodeError, ValueError):
        return
    yield from (model.parent / name for name in locations(proto) if "\0" not in name)


def _files_of(source: str) -> Iterator[Path]:
    """The files that a SPEC names: one file, all in a folder, or the module of a function."""
    path = parse_spec(source)[0]
    if samples_path(path).is_dir():
        yield from _all_in(samples_path(path), set())
    elif path.exists():
        yield path
    elif (match := CODE.fullmatch(source)) is not None:
        yield from _module_files(match[1])


def _all_in(folder: Path, seen: set[Identity | None]) -> Iterator[Path]:
    """Every file below a folder, following links; visits each folder once."""
    seen.add(_identity(folder))
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        path = Path(entry.path)
        if not entry.is_dir():
            yield path
        elif _identity(path) not in seen:
            yield from _all_in(path, seen)


def _module_files(module: str) -> Iterable[Path]:
    """The file of a module's top-level package, found without running any code."""
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin)
