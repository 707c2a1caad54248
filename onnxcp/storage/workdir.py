"""The work folder: a long run stores finished work in it, so that a killed run can continue.

It belongs to one model and one version of onnxcp, which `run.json` records. One run at a time
uses it, and holds a lock that ends with its process.
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
    """All files in a run's work folder; empty if the folder does not exist."""
    return [file for file in folder.rglob("*") if file.is_file()]


def count_finished(folder: Path) -> int:
    """How many finished results a work folder holds: fits, evaluations, tables, trainings."""
    entries = [*folder.glob("kept/??/*.npz"), *folder.glob("kept/??/*.json")]
    statistics = folder.glob("calibration-*/statistics.json")
    return len([*entries, *statistics, *folder.glob("trained/*/*")])


@contextlib.contextmanager
def open_folder(folder: Path, model_sha256: str, *, resume: bool) -> Iterator[None]:
    """Create the work folder of a run, or check that it is this run's, and lock it.

    The lock ends with the block. Temporary files of killed runs in the folder are removed.

    Raises:
        WorkError: the folder belongs to another model or another version; it holds a run and
            `resume` is off; another run uses it; or it cannot be created.
    """
    record = {"onnxcp": __version__, "model_sha256": model_sha256}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_other(folder, record, resume=resume)  # before any file is written to it
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise WorkError(
            f"<<work_dir={folder}>>: another run uses it; wait for its end, or name a new folder"
        ) from error
    except OSError as error:
        raise WorkError(
            f"<<work_dir={folder}>>: {error.strerror}; name a folder you can write to"
        ) from error
    try:
        _refuse_other(folder, record, resume=resume)
        for subfolder, _, _ in os.walk(folder):
            temporary.sweep(Path(subfolder))
        _write(folder / NAME, record)
        yield
    finally:
        lock.release()


def _write(path: Path, record: dict[str, str]) -> None:
    try:
        write_text(path, json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise WorkError(
            f"<<work_dir={path.parent}>>: {error.strerror}; name a folder you can write to"
        ) from error


def _refuse_other(folder: Path, record: dict[str, str], *, resume: bool) -> None:
    """Raises WorkError if the folder is not empty and not this run's."""
    if any(entry.name != LOCK and not _is_left(entry) for entry in folder.iterdir()):
        _refuse_run(folder, _read(folder / NAME), record, resume=resume)


def _is_left(entry: Path) -> bool:
    return temporary.NAME.fullmatch(entry.name) is not None


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise WorkError(
            f"<<work_dir={path.parent}>>: not empty, and not a work folder; name a new folder"
        )
    return document


def _refuse_run(
    folder: Path, recorded: dict[str, Any], record: dict[str, str], *, resume: bool
) -> None:
    if recorded.get("model_sha256") != record["model_sha256"]:
        raise WorkError(f"<<work_dir={folder}>>: belongs to another model; name a new folder")
    if recorded.get("onnxcp") != record["onnxcp"]:
        raise WorkError(
            f"<<work_dir={folder}>>: was made by onnxcp {recorded.get('onnxcp')}, this is "
            f"{record['onnxcp']}; name a new folder"
        )
    if not resume:
        raise WorkError(
            f"<<work_dir={folder}>>: holds a run of this model; pass <<resume>> to continue it, "
            "or name a new folder"
        )
