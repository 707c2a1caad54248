"""How long work tells where it is, without knowing who listens."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with a phase, how much of it is done, and of how much; or with a note and `NOTE`."""

NOTE = 0  # of nothing: what is said is no phase


def silent(phase: str, done: int, total: int) -> None:
    """Nobody listens."""
    del phase, done, total
