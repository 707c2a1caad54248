"""The grid of ranks (knots) at which drafts are fitted, and interpolation of errors on it."""

import math
from collections.abc import Sequence

import numpy as np

FIRST = 16  # the first knot


def knots(rank: int, group: int) -> tuple[int | None, int]:
    """The knots around a rank: the largest below it, if any, and the smallest from it on.

    Knots are FIRST times powers of two.
    """
    below, above = None, math.lcm(FIRST, group)
    while above < rank:
        below, above = above, 2 * above
    return below, above


def nearest_knot(rank: float, group: int) -> int:
    """The knot nearest to a rank by ratio."""
    first = math.lcm(FIRST, group)
    return int(first * 2 ** max(0, round(math.log2(rank / first))))


def knots_up_to(high: int, group: int) -> list[int]:
    """All knots up to `high`, which is one."""
    ranks, rank = list[int](), math.lcm(FIRST, group)
    while rank <= high:
        ranks.append(rank)
        rank *= 2
    return ranks


def read_off(rank: int, ranks: Sequence[int], errors: Sequence[float]) -> float:
    """The interpolated error at a rank below the last of `ranks`."""
    from scipy.interpolate import PchipInterpolator

    falling = np.minimum.accumulate(errors)
    usable = np.isfinite(falling)
    curve = PchipInterpolator(np.log(np.asarray(ranks)[usable]), np.log(falling[usable]))
    return float(np.exp(curve(math.log(rank))))
