"""The frontier of plans: the least predicted loss for every amount of time saved.

This is a multiple-choice knapsack problem, solved exactly by dynamic programming on a grid of
times. One run gives every plan of the frontier. Axes: C candidates of a site, G grid levels, P
plans. Source: Kellerer, Pferschy & Pisinger, Knapsack Problems, 2004, chapter 11.
"""

import math
from dataclasses import dataclass

import numpy as np

from onnxcp.arrays import Float64, Int64
from onnxcp.plan import Candidate, Menu, Plan
from onnxcp.search.plan_family import plan_of

GRID = 10_000  # levels of the largest possible saving; a site's saving is off by at most one level
ROUNDING = 1e-9  # of a level: division errors must not round down


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """One site's candidates with the time they save, in seconds and levels, and their loss."""

    candidates: tuple[Candidate | None, ...]  # None: unchanged
    saved: Float64[np.ndarray, " C"]
    loss: Float64[np.ndarray, " C"]
    levels: Int64[np.ndarray, " C"]


@dataclass(frozen=True, slots=True, eq=False)
class Frontier:
    """Plans by position, with strictly increasing saving and predicted loss.

    A plan is built when it is requested.
    """

    saved: Float64[np.ndarray, " P"]  # seconds
    loss: Float64[np.ndarray, " P"]  # predicted
    _ends: Int64[np.ndarray, " P"]  # the level of every plan
    _columns: tuple[_Column, ...]
    _picks: tuple[Int64[np.ndarray, " G"], ...]  # by site: the candidate chosen at every level

    def __len__(self) -> int:
        return len(self.saved)

    def plan(self, position: int) -> Plan:
        """The plan at a position; 0 saves least."""
        level, chosen = int(self._ends[position]), list[Candidate | None]()
        for column, picks in zip(reversed(self._columns), reversed(self._picks), strict=True):
            pick = picks[level]
            chosen.append(column.candidates[pick])
            level -= int(column.levels[pick])
        return plan_of(chosen)

    def position(self, loss: float) -> int:
        """The position of the fastest plan with at most this predicted loss; -1 if none."""
        return int(np.searchsorted(self.loss, loss, side="right")) - 1


def frontier(menu: Menu) -> Frontier:
    """All plans for which no other saves as much time at less predicted loss.

    Candidates that save no time or have an infinite predicted loss are left out.
    """
    columns = _columns(menu)
    levels = np.arange(GRID + 1)
    loss, saved = np.where(levels == 0, 0.0, np.inf), np.zeros(GRID + 1)
    picks = []
    for column in columns:
        before = levels[:, None] - column.levels
        options = np.where(before >= 0, loss[before], np.inf) + column.loss
        pick = options.argmin(axis=1)
        loss, saved = options[levels, pick], saved[before[levels, pick]] + column.saved[pick]
        picks.append(pick)
    ends = _undominated(saved, loss)
    return Frontier(saved[ends], loss[ends], ends, columns, tuple(picks))


def _columns(menu: Menu) -> tuple[_Column, ...]:
    usable = {name: _usable(menu, name) for name in menu.sites}
    savings = {
        name: np.array([0.0, *(menu.originals[name].seconds - c.seconds for c in row)])
        for name, row in usable.items()
    }
    unit = sum(float(s.max()) for s in savings.values()) / GRID or 1.0
    return tuple(
        _Column(
            (None, *row),
            savings[name],
            np.array([0.0, *map(menu.loss, row)]),
            np.floor(savings[name] / unit + ROUNDING).astype(np.int64),
        )
        for name, row in usable.items()
    )


def _usable(menu: Menu, site: str) -> list[Candidate]:
    faster = (c for c in menu.sites[site] if c.seconds < menu.originals[site].seconds)
    return [c for c in faster if math.isfinite(menu.loss(c))]


def _undominated(
    saved: Float64[np.ndarray, " G"], loss: Float64[np.ndarray, " G"]
) -> Int64[np.ndarray, " P"]:
    """Levels for which no higher level loses as little and no lower level saves as much."""
    above = np.append(np.minimum.accumulate(loss[::-1])[::-1][1:], np.inf)
    candidates = np.flatnonzero(loss < above)
    saved_below = np.maximum.accumulate(np.append(-np.inf, saved[candidates]))[:-1]
    return candidates[saved[candidates] > saved_below]
