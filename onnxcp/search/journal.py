"""The journal of a search: a line for every step of a trial, each with its hash.

A line that is not what its hash is of is refused; one that a killed process left half written is
dropped. This is where Optuna's journals are known, and only what needs them imports it.
"""

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from onnxcp.storage.checksums import opened, sealed


def open_storage(journal: Path, grace_period: int) -> JournalStorage:
    """Raises ValueError for a journal that is none or damaged, OSError for none to write to."""
    lock = JournalFileOpenLock(str(journal), grace_period=grace_period)
    lock.acquire()
    try:
        _drop_half_line(journal)
    finally:
        lock.release()
    return JournalStorage(_Checked(str(journal), lock))


def _drop_half_line(journal: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        content = journal.read_bytes()
        whole = content.rfind(b"\n") + 1
        if 0 < whole < len(content):
            with journal.open("r+b") as stream:
                stream.truncate(whole)


class _Checked(JournalFileBackend):
    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        for log in super().read_logs(log_number_from):
            yield opened(log)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        super().append_logs([sealed(log) for log in logs])
