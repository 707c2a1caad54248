"""The files of one run take their places together: all of them, or none.

The texts come first and the model last: once it has its name the run is done. Before that, what
was placed is taken back, and what it replaced is put back; where the process was killed, by the
next run that writes to the same folders (`recover`). A model's external data never replace a
file: they get a name of their own, so that an old model is whole, with its data, until the new
one takes its name.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from onnxcp.errors import OutputError
from onnxcp.graph.data_file_names import named, remove_unused
from onnxcp.storage import atomic_write, temporary

RECORD = "places.json"


@dataclass(frozen=True, slots=True)
class Place:
    """A file that is staged, where it belongs, whether it may replace another file there, and
    where that one is kept. What is placed keeps its staged name too, so that it is known again."""

    staged: str
    target: str
    replaces: bool
    backup: str | None = None


def publish(
    texts: Mapping[Path, str], models: Sequence[tuple[Path, Path]] = (), *, overwrite: bool = False
) -> None:
    """Write texts and models; a model is given as the path where it is staged, with its data
    beside it, and the path where it belongs.

    Raises:
        OutputError: a file came into being meanwhile and `overwrite` is off, or the disk is
            full; then nothing is changed.
    """
    targets = [*texts, *(target for _, target in models)]
    if not targets:
        return
    try:
        with contextlib.ExitStack() as stack:
            folders = {
                parent: stack.enter_context(temporary.folder(parent))
                for parent in dict.fromkeys(target.parent for target in targets)
            }
            staged, unused = _staged(texts, folders), list[Path]()
            for number, (made, target) in enumerate(models):
                found = named(made, target, folders[target.parent] / f"{number}.model")
                staged += found.files
                unused += found.unused
            places = [_place(*pair, replaces=overwrite and pair[1] in targets) for pair in staged]
            _place_all(places, folders[targets[-1].parent], unused)
    except FileExistsError as error:
        raise OutputError(
            f"{error.filename2 or error.filename}: came into being while this run worked; it was "
            "left as it is, and nothing was written; choose another name or pass <<overwrite>>"
        ) from error
    except OSError as error:
        where = error.filename2 or error.filename or targets[-1]
        raise OutputError(
            f"{_shown(where, targets)}: cannot write: {error.strerror}; nothing was written; check "
            "the folder and the space left there"
        ) from error


def _shown(where: object, targets: Sequence[Path]) -> object:
    """The output that is meant by the name of a temporary file."""
    inside = temporary.NAME.search(str(where))
    return targets[-1] if inside else where


def _staged(texts: Mapping[Path, str], folders: Mapping[Path, Path]) -> list[tuple[Path, Path]]:
    staged = []
    for number, (target, text) in enumerate(texts.items()):
        path = folders[target.parent] / f"{number}.text"
        atomic_write.write_text(path, text)
        staged.append((path, target))
    return staged


def _place(staged: Path, target: Path, *, replaces: bool) -> Place:
    """Absolute: what another process takes back may lie elsewhere from there."""
    return Place(str(staged.absolute()), str(target.absolute()), replaces)


def _place_all(places: Sequence[Place], folder: Path, unused: Sequence[Path]) -> None:
    """Place files in order; `folder` is where the record of it lies meanwhile."""
    places = [*map(_backed_up, places[:-1]), places[-1]]
    record = {"places": [asdict(p) for p in places], "unused": [str(p.absolute()) for p in unused]}
    atomic_write.write_text(folder / RECORD, json.dumps(record))
    atomic_write.sync(folder.parent)
    try:
        for place in places:
            _put(place)
        for parent in {Path(place.target).parent for place in places}:
            atomic_write.sync(parent)
    except BaseException:
        if not _is_done(places):
            _take_back(places, is_own=True)
            raise
    remove_unused(unused)


def _backed_up(place: Place) -> Place:
    """With the file that it replaces kept beside what is staged."""
    target = Path(place.target)
    if not (place.replaces and target.exists()):
        return place
    backup = place.staged + ".old"
    atomic_write.copied(target, Path(backup))
    return replace(place, backup=backup)


def _put(place: Place) -> None:
    staged, target = Path(place.staged), Path(place.target)
    moving = Path(place.staged + ".moving")
    if not atomic_write.linked(staged, moving):
        moving = staged
    atomic_write.take_name(moving, target, overwrite=place.replaces)


def _is_done(places: Sequence[Place]) -> bool:
    """Whether the last file has its name: then the staged one has a second link, wherever the
    user may have moved it since, or is gone where there are no links."""
    staged = Path(places[-1].staged)
    Path(places[-1].staged + ".moving").unlink(missing_ok=True)
    return not staged.exists() or staged.stat().st_nlink > 1


def _take_back(places: Sequence[Place], *, is_own: bool) -> None:
    """Put back what was there before; what is not what was placed stays. `is_own` where this
    process placed it: then a staged file is gone only because it was moved into its place."""
    for place in places[:-1]:
        with contextlib.suppress(OSError):
            if not _is_placed(place, is_own=is_own):
                continue
            if place.backup is not None:
                Path(place.backup).replace(place.target)
            else:
                Path(place.target).unlink()


def _is_placed(place: Place, *, is_own: bool) -> bool:
    staged = Path(place.staged)
    if not staged.exists():
        return is_own
    return os.path.samestat(Path(place.target).lstat(), staged.lstat())


def recover(folders: Iterable[Path]) -> None:
    """Remove what killed runs left in folders; what they had placed in part is taken back."""
    known = list(dict.fromkeys(folders))
    for folder in known:
        for left in temporary.leftovers(folder):
            if (left / RECORD).exists():
                temporary.sweep_one(left, _finish)
    for folder in known:
        temporary.sweep(folder)


def _finish(left: Path) -> None:
    """Take back what a killed run placed, or, where it had placed all, end what it began."""
    try:
        record = json.loads((left / RECORD).read_text(encoding="utf-8"))
        places = [Place(**row) for row in record["places"]]
        unused = [Path(path) for path in record["unused"]]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if not places:
        return
    if _is_done(places):
        remove_unused(unused)
    else:
        _take_back(places, is_own=False)
