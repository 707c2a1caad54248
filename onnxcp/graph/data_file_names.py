"""Names for the external data of written models, and removal of unused old data.

A name is `OUT.data`, or `OUT.<hash of the data>.data` if that is taken; data never replace another
file. Old data are removed only if onnxcp wrote the replaced model, they have such a name, and no
other file nearby mentions them: a second model may use the same data.
"""

import contextlib
import hashlib
import mmap
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from onnxcp.graph.external_data import locations, tensors
from onnxcp.storage import atomic_write

SHORT, LONG = 8, 64  # hexadecimal digits in a name
MARK = "onnxcp.version"  # in the metadata of what we wrote
LARGEST_MODEL = 2**31  # bytes: protobuf's limit, so that larger files mention nothing
MOST_SEARCHED = 2**34  # bytes of files nearby; where there are more, old data stay


@dataclass(frozen=True, slots=True)
class Named:
    """Staged files with their targets, the model last; and old data that only the replaced model
    used, as far as that model states."""

    files: list[tuple[Path, Path]]
    unused: list[Path] = field(default_factory=list)


def data_file(path: Path) -> Path:
    """The default file for the external data of a model written to `path`."""
    return path.with_name(path.name + ".data")


def named(staged: Path, target: Path, model: Path) -> Named:
    """The files of a staged model and the names that they are to have. The model is put at
    `model`, in a folder of the target's file system, its data beside it, and seen to the disk."""
    data = data_file(model)
    old = _old_data(target)
    if not data_file(staged).exists():
        _take_in(staged, model)
        return Named([(model, target)], old)
    _take_in(data_file(staged), data)
    place, is_there = _free(target, data, old)
    if place.name == data_file(staged).name:
        _take_in(staged, model)
    else:
        atomic_write.write_bytes(model, _relocated(staged, place.name))
    files = [(model, target)] if is_there else [(data, place), (model, target)]
    return Named(files, [path for path in old if path != place])


def _take_in(staged: Path, name: Path) -> None:
    atomic_write.link_or_copy(staged, name)
    atomic_write.sync(name)


def _free(target: Path, data: Path, old: list[Path]) -> tuple[Path, bool]:
    """A name for the data, and whether they are there already, from the old model."""
    digest = _sha256(data)
    names = [f"{target.name}.data"]
    names += [f"{target.name}.{digest[:count]}.data" for count in (SHORT, LONG // 2, LONG)]
    for name in names:
        place = target.with_name(name)
        if place in old and _sha256(place) == digest:
            return place, True
        if not place.exists() and not place.is_symlink():
            return place, False
    raise FileExistsError(17, "exists", str(place))


def _relocated(staged: Path, name: str) -> bytes:
    proto = onnx.load(str(staged), load_external_data=False)
    for tensor in tensors(proto):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = name
    serialized: bytes = proto.SerializeToString()
    return serialized


def _old_data(target: Path) -> list[Path]:
    """Data files of the model at `target`, if onnxcp wrote both."""
    try:
        proto = onnx.load(str(target), load_external_data=False)
    except (OSError, DecodeError, ValueError):
        return []
    if not any(entry.key == MARK for entry in proto.metadata_props):
        return []
    pattern = re.compile(rf"{re.escape(target.name)}(\.[0-9a-f]{{{SHORT},{LONG}}})?\.data")
    return [target.with_name(n) for n in sorted(locations(proto)) if pattern.fullmatch(n)]


def remove_unused(candidates: Iterable[Path]) -> None:
    """Remove old data files of a model that was replaced, where they are plain files with no
    second name that no file nearby mentions."""
    for path in candidates:
        with contextlib.suppress(OSError):
            if path.is_symlink() or path.stat().st_nlink > 1 or _is_mentioned(path):
                continue
            path.unlink()
            atomic_write.sync(path.parent)


def _is_mentioned(path: Path) -> bool:
    """Whether a file that may be a model, in the folder or the one above it, has the name in
    it; True where there are too many bytes to look."""
    total = 0
    for other in _nearby(path):
        size = other.stat().st_size
        total += size
        if total > MOST_SEARCHED or _contains(other, size, path.name.encode()):
            return True
    return False


def _nearby(path: Path) -> Iterator[Path]:
    for other in path.parent.iterdir():
        if other != path and other.is_file() and other.stat().st_size <= LARGEST_MODEL:
            yield other
    for other in path.absolute().parent.parent.glob("*.onnx"):
        if other.is_file():
            yield other


def _contains(path: Path, size: int, text: bytes) -> bool:
    if not size:
        return False
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return view.find(text) >= 0


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
