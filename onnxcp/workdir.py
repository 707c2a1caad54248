"""A folder that a long run keeps all it finishes in, so that a killed one can go on.

It belongs to one model and one version of onnxcp: `run.json` says which.
"""

import json
from pathlib import Path
from typing import Any

from onnxcp import __version__
from onnxcp.atomic_write import write_text
from onnxcp.errors import WorkError

NAME = "run.json"


def own_files(folder: Path) -> list[Path]:
    """Files that a run keeps in its work folder, as far as they are there."""
    return [file for file in folder.rglob("*") if file.is_file()]


def open_folder(folder: Path, model_sha256: str, *, resume: bool) -> None:
    """Make the work folder of a run, or check that it is this run's.

    Raises:
        WorkError: it holds another model's run, or one of another version; it holds a run and
            `resume` is off; or it can not be made.
    """
    mine = {"onnxcp": __version__, "model_sha256": model_sha256}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            _refuse_other(folder, _read(folder / NAME), mine, resume=resume)
    except OSError as error:
        raise WorkError(
            f"--work-dir {folder}: {error.strerror}; name a folder you can write to"
        ) from error
    write_text(folder / NAME, json.dumps(mine, indent=1) + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise WorkError(
            f"--work-dir {path.parent}: not empty, and not the work of a run; name a new folder"
        )
    return found


def _refuse_other(
    folder: Path, found: dict[str, Any], mine: dict[str, str], *, resume: bool
) -> None:
    if found.get("model_sha256") != mine["model_sha256"]:
        raise WorkError(f"--work-dir {folder}: holds the work on another model; name a new folder")
    if found.get("onnxcp") != mine["onnxcp"]:
        raise WorkError(
            f"--work-dir {folder}: was made by onnxcp {found.get('onnxcp')}, this is "
            f"{mine['onnxcp']}; name a new folder"
        )
    if not resume:
        raise WorkError(
            f"--work-dir {folder}: holds a run of this model; pass --resume to go on with it, "
            "or name a new folder"
        )
