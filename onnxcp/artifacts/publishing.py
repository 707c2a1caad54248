"""Publishing of a run's output files: all of them, or none.

Texts are placed first and the model last: once the model is in place, the run is done. If a step
before that fails, the files placed so far are removed and the files they replaced are restored.
If the process was killed, the next run that writes to the same folders does so (`recover`). A
model's external data never replace a file: they get a new name, so that an old model stays
complete until the new one replaces it.
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

RECORD = "places.json"  # of the files of an unfinished run


@dataclass(frozen=True, slots=True)
class Place:
    """A staged file, its target, whether it may replace a file there, and that file's backup.

    A placed file keeps its staged name as a second link, by which it is recognized.
    """

    staged: str
    target: str
    replaces: bool
    backup: str | None = None


def publish(
    texts: Mapping[Path, str], models: Sequence[tuple[Path, Path]] = (), *, overwrite: bool = False
) -> None:
    """Write texts, by target, and models, as pairs of staged path and target.

    The external data of a staged model are beside it.

    Raises:
        OutputError: a target was created meanwhile and `overwrite` is off, or the disk is full;
            then nothing is changed.
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
            for number, (staged_model, target) in enumerate(models):
                named_model = named(
                    staged_model, target, folders[target.parent] / f"{number}.model"
                )
                staged += named_model.files
                unused += named_model.unused
            places = [_place(*pair, replaces=overwrite and pair[1] in targets) for pair in staged]
            _place_all(places, folders[targets[-1].parent], unused)
    except FileExistsError as error:
        raise OutputError(
            f"{error.filename2 or error.filename}: was created while this run worked; it is "
            "unchanged, and nothing was written; choose another name or pass <<overwrite>>"
        ) from error
    except OSError as error:
        where = error.filename2 or error.filename or targets[-1]
        raise OutputError(
            f"{_shown(where, targets)}: cannot be written: {error.strerror}; nothing was written; "
            "check the folder and its free space"
        ) from error


def _shown(where: object, targets: Sequence[Path]) -> object:
    """The path to show: the last output in place of a temporary file."""
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
    """A place with absolute paths, since another process may have to undo it."""
    return Place(str(staged.absolute()), str(target.absolute()), replaces)


def _place_all(places: Sequence[Place], folder: Path, unused: Sequence[Path]) -> None:
    """Place files in order; until that is done, `folder` holds a record of it."""
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
    """The place with a backup of the file that it replaces, beside the staged file."""
    target = Path(place.target)
    if not (place.replaces and target.exists()):
        return place
    backup = place.staged + ".old"
    atomic_write.link_or_copy(target, Path(backup))
    return replace(place, backup=backup)


def _put(place: Place) -> None:
    staged, target = Path(place.staged), Path(place.target)
    moving = Path(place.staged + ".moving")
    if not atomic_write.hard_linked(staged, moving):
        moving = staged
    atomic_write.take_name(moving, target, overwrite=place.replaces)


def _is_done(places: Sequence[Place]) -> bool:
    """Whether the last file is in place.

    Its staged file then has a second link, even if the user has moved the file since, or is gone
    if the file system does not support links.
    """
    staged = Path(places[-1].staged)
    Path(places[-1].staged + ".moving").unlink(missing_ok=True)
    return not staged.exists() or staged.stat().st_nlink > 1


def _take_back(places: Sequence[Place], *, is_own: bool) -> None:
    """Restore the files that were there before; leaves files that this run did not place.

    `is_own` if this process placed them: a missing staged file was then moved to its target.
    """
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
    """Remove leftovers of killed runs from folders, and undo what they had published in part."""
    unique = list(dict.fromkeys(folders))
    for folder in unique:
        for leftover in temporary.leftovers(folder):
            if (leftover / RECORD).exists():
                temporary.sweep_one(leftover, _finish)
    for folder in unique:
        temporary.sweep(folder)


def _finish(leftover: Path) -> None:
    """Undo what a killed run placed, or finish it if all files were in place."""
    try:
        record = json.loads((leftover / RECORD).read_text(encoding="utf-8"))
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
