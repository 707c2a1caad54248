"""The journal file of a genetic search: one line per step of a trial, each with a checksum.

A line that does not match its checksum is refused; a last line that a killed process left
incomplete is dropped. Only this module uses Optuna's journals.
"""

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from onnxcp.storage.checksums import verified, with_checksum


def open_storage(journal: Path, grace_period: int) -> JournalStorage:
    """Open a journal, or create it.

    The lock of a process that was killed is broken after `grace_period` seconds.

    Raises:
        ValueError: the file is not a journal, or is damaged.
        OSError: the file cannot be written.
    """
    lock = JournalFileOpenLock(str(journal), grace_period=grace_period)
    lock.acquire()
    try:
        _drop_half_line(journal)
    finally:
        lock.release()
    return JournalStorage(_Checked(str(journal), lock))


def _drop_half_line(journal: Path) -> None:
    """Cut off a last line without a line end."""
    with contextlib.suppress(FileNotFoundError):
        content = journal.read_bytes()
        whole = content.rfind(b"\n") + 1
        if 0 < whole < len(content):
            with journal.open("r+b") as stream:
                stream.truncate(whole)


class _Checked(JournalFileBackend):
    """A journal whose lines carry checksums; reading raises ValueError for damaged lines."""

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        for log in super().read_logs(log_number_from):
            yield verified(log)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        super().append_logs([with_checksum(log) for log in logs])
