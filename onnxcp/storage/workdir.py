"""A folder that a long run keeps all it finishes in, so that a killed one can go on.

It belongs to one model and one version of onnxcp: `run.json` says which. One run at a time works
in it, and holds a lock that ends with its process.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from onnxcp import __version__
from onnxcp.errors import WorkError
from onnxcp.storage import temporary
from onnxcp.storage.atomic_write import write_text

NAME, LOCK = "run.json", ".lock"


def own_files(folder: Path) -> list[Path]:
    """Files that a run keeps in its work folder, as far as they are there."""
    return [file for file in folder.rglob("*") if file.is_file()]


def finished(folder: Path) -> int:
    """How many finished things a work folder holds: fits, judgements, tables, trainings."""
    kept = [*folder.glob("kept/??/*.npz"), *folder.glob("kept/??/*.json")]
    return len([*kept, *folder.glob("calibration-*/statistics.json"), *folder.glob("trained/*/*")])


@contextlib.contextmanager
def open_folder(folder: Path, model_sha256: str, *, resume: bool) -> Iterator[None]:
    """Make the work folder of a run, or check that it is this run's, and hold it until the
    block ends; what a killed run left half written there is removed.

    Raises:
        WorkError: it holds another model's run, or one of another version; it holds a run and
            `resume` is off; another run works in it; or it cannot be made.
    """
    mine = {"onnxcp": __version__, "model_sha256": model_sha256}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_other(folder, mine, resume=resume)  # before a file is put into a foreign folder
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise WorkError(
            f"<<work_dir={folder}>>: another run works in it; wait for its end, or name a new "
            "folder"
        ) from error
    except OSError as error:
        raise WorkError(
            f"<<work_dir={folder}>>: {error.strerror}; name a folder you can write to"
        ) from error
    try:
        _refuse_other(folder, mine, resume=resume)
        for place, _, _ in os.walk(folder):
            temporary.sweep(Path(place))
        _write(folder / NAME, mine)
        yield
    finally:
        lock.release()


def _write(path: Path, mine: dict[str, str]) -> None:
    try:
        write_text(path, json.dumps(mine, indent=1) + "\n")
    except OSError as error:
        raise WorkError(
            f"<<work_dir={path.parent}>>: {error.strerror}; name a folder you can write to"
        ) from error


def _refuse_other(folder: Path, mine: dict[str, str], *, resume: bool) -> None:
    """Raises WorkError for a folder that holds anything but this run."""
    if any(entry.name != LOCK and not _is_left(entry) for entry in folder.iterdir()):
        _refuse_run(folder, _read(folder / NAME), mine, resume=resume)


def _is_left(entry: Path) -> bool:
    return temporary.NAME.fullmatch(entry.name) is not None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise WorkError(
            f"<<work_dir={path.parent}>>: not empty, and not the work of a run; name a new folder"
        )
    return found


def _refuse_run(folder: Path, found: dict[str, Any], mine: dict[str, str], *, resume: bool) -> None:
    if found.get("model_sha256") != mine["model_sha256"]:
        raise WorkError(
            f"<<work_dir={folder}>>: holds the work on another model; name a new folder"
        )
    if found.get("onnxcp") != mine["onnxcp"]:
        raise WorkError(
            f"<<work_dir={folder}>>: was made by onnxcp {found.get('onnxcp')}, this is "
            f"{mine['onnxcp']}; name a new folder"
        )
    if not resume:
        raise WorkError(
            f"<<work_dir={folder}>>: holds a run of this model; pass <<resume>> to go on with it, "
            "or name a new folder"
        )
