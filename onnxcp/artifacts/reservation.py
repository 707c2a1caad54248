"""Before any work: every file that a run would write can be written, and none is one it reads.

Files are compared by what they are, not by what they are called: a link or a hard link to a file
that is read is that file. What a run writes are plain files; a link, a device, a FIFO, a socket
or a folder in such a place is refused, not replaced.
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
    """What a run reads: models, with the files of their external data; samples as options name
    them (SPEC), folders with all that is in them; other files, where they are given."""

    models: tuple[Path, ...] = ()
    samples: tuple[str, ...] = ()
    others: tuple[Path | str | None, ...] = ()

    def files(self) -> Iterator[Path]:
        """Every file, as far as there are such."""
        for model in self.models:
            yield model
            yield from _data_of(model)
        for source in (*self.samples, *self.others):
            if source is not None:
                with contextlib.suppress(OSError, ValueError):  # a name that no file can have
                    yield from _files_of(str(source))


def model_files(output: Path) -> tuple[Path, ...]:
    """What is written for a model: itself and its external data.

    Raises:
        OutputError: it is no name of a file.
    """
    _refuse_odd(output)
    return output, data_file(output)


def reserve(outputs: Sequence[Path], reads: Reads, *, overwrite: bool = False) -> None:
    """Make sure that a run can write its outputs; what killed runs left beside them is removed.

    Raises:
        OutputError: one exists and `overwrite` is off, is no plain file, is read by the run or
            named twice, or its folder is missing or cannot be written to.
    """
    recover(path.parent for path in outputs)
    known: set[tuple[Path, str]] = set()
    for path in outputs:
        name = _place(path)
        if name in known:
            raise OutputError(f"{path}: this run writes that file already; choose another name")
        known.add(name)
    for path in outputs:
        _refuse_odd(path)
    _refuse_read(outputs, reads)
    for path in outputs:
        if path.exists() and not overwrite:
            raise OutputError(f"{path}: exists; choose another name or pass <<overwrite>>")
        _refuse_unwritable(path)


def reserve_folder(folder: Path, *, overwrite: bool) -> None:
    """Make sure, before any work, that files can be written to it.

    Raises:
        OutputError: it holds files and `overwrite` is off, or it can not be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        recover([folder])
        is_empty = not any(folder.iterdir())
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror}; name a folder you can write to") from error
    if not is_empty and not overwrite:
        raise OutputError(f"{folder}: not empty; name another or pass <<overwrite>>")


def _place(path: Path) -> tuple[Path, str]:
    """The folder as it is, and the name in it, which may be a link."""
    try:
        return path.parent.resolve(), path.name
    except (OSError, RuntimeError):
        return path.parent.absolute(), path.name


def _refuse_odd(path: Path) -> None:
    """Raises OutputError for what is there and is no plain file."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(mode):
        what = KINDS.get(stat.S_IFMT(mode), "is no plain file")
        raise OutputError(f"{path}: {what}; name a file")


def _refuse_read(outputs: Sequence[Path], reads: Reads) -> None:
    """Raises OutputError for an output that is a file the run reads."""
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
        about = path.stat()
    except (OSError, ValueError):
        return None
    return about.st_dev, about.st_ino


def _refuse_unwritable(path: Path) -> None:
    try:
        with temporary.file(path.parent):
            pass
    except OSError as error:
        raise OutputError(
            f"{path}: can not write there: {error.strerror}; name a folder you can write to"
        ) from error


def _data_of(model: Path) -> Iterator[Path]:
    """Files of a model's external data; none of what cannot be read, which is said later."""
    if not model.is_file():
        return
    try:
        proto = onnx.load(str(model), format="protobuf", load_external_data=False)
    except (OSError, DecodeError, ValueError):
        return
    yield from (model.parent / name for name in locations(proto) if "\0" not in name)


def _files_of(source: str) -> Iterator[Path]:
    """The files that an option names: one, all of a folder, or the module of a function."""
    path = parse_spec(source)[0]
    if samples_path(path).is_dir():
        yield from _all_in(samples_path(path), set())
    elif path.exists():
        yield path
    elif (found := CODE.fullmatch(source)) is not None:
        yield from _module_files(found[1])


def _all_in(folder: Path, seen: set[Identity | None]) -> Iterator[Path]:
    """Every file below a folder, through links too; each folder once."""
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
    """The file of a module's outermost package, found without running any code."""
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin)
