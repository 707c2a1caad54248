"""Disturbance by other work: whether enough undisturbed turns are left to compare models.

Sequences named `clean` state, for each model and turn in order, whether it was undisturbed.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

MIN_CLEAN = 20  # undisturbed turns that are enough of any number


@dataclass(frozen=True, slots=True)
class Disturbance:
    """In how many turns of two models other work ran, and whether processor times were compared."""

    disturbed: int
    turns: int
    by_processor: bool

    def words(self) -> str:
        """The disturbance in words, to follow an interval; empty if there was none."""
        if self.by_processor:
            return f"in processor time: other work ran in {self.disturbed} of {self.turns} turns"
        if not self.disturbed:
            return ""
        return f"{self.disturbed} of {self.turns} turns dropped because other work ran"


def are_enough(clean: int, taken: int) -> bool:
    """Whether so many undisturbed turns stand for all that were taken: all of them, half of
    them if that is four or more, or `MIN_CLEAN`."""
    return clean == taken or clean >= min(MIN_CLEAN, max(4, taken / 2))


def shared(clean: Sequence[Sequence[bool]]) -> int:
    """The turns in which both models of a pair ran undisturbed, for the worst pair."""
    if len(clean) == 1:
        return sum(clean[0])
    return min(sum(map(min, a, b)) for a, b in combinations(clean, 2))


def why_busy(clean: Sequence[Sequence[bool]], *, is_one_thread: bool) -> str:
    """Why models cannot be compared, and what to try."""
    turns = len(clean[0])
    share = 1 - shared(clean) / turns
    remedy = "" if is_one_thread else "; on the CPU <<threads=1>> can be measured even so"
    return (
        f"the machine is too busy to measure: other work ran in {share:.0%} of {turns} turns"
        f"{_load()}; stop it or try again later{remedy}"
    )


def why_host(share: float) -> str:
    """The same where the host of a virtual machine is what is busy."""
    return (
        "the machine is too busy to measure: the host of this virtual machine took "
        f"{share:.0%} of its processors' time; try again later"
    )


def _load() -> str:
    try:
        return f" (load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors)"
    except (OSError, AttributeError):  # Windows has none
        return ""
