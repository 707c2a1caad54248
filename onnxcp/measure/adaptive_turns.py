"""Timing in turns until the times are known well enough, within limits of time."""

from collections.abc import Callable, Sequence

from onnxcp.errors import TooBusy
from onnxcp.measure.stopwatch import Stopwatch
from onnxcp.measure.timing import PATIENCE, Speedup, Timing, sampled, speedup, take_turns

SECONDS = 3.0  # spent on one distinct context at most, once FIRST turns are taken
LEAST = 0.3  # seconds at least: a burst of other work must not fall on one context alone
FIRST, MOST = 10, 5120  # turns, doubled until the intervals are tight
TIGHT = 0.02  # half of a ratio's 95 % interval, over the ratio
CLEARLY = 1.02  # times as fast, and surely faster at all, makes it worth timing


def until(
    is_enough: Callable[[Sequence[Timing]], bool],
    subjects: Sequence[Callable[[], object]],
    watch: Stopwatch,
    least: float = LEAST,
    most: float = SECONDS,
) -> tuple[Timing, ...]:
    """Turns until they are enough, for a time between two bounds; up to `PATIENCE` times as long
    where other work runs in most of them."""
    begun = watch()
    taken = take_turns(subjects, watch, turns=FIRST, seconds=most, must_tell=False)
    while len(taken[0].seconds) < MOST:
        end = begun + (PATIENCE if _is_busy(taken) else 1) * most
        if watch() >= end or (watch() > begun + least and is_enough(taken)):
            break
        turns = len(taken[0].seconds)
        more = take_turns(
            subjects, watch, turns=turns, warmup=0, seconds=end - watch(), must_tell=False
        )
        taken = tuple(a + b for a, b in zip(taken, more, strict=True))
    return taken


def _is_busy(taken: Sequence[Timing]) -> bool:
    """Whether most turns are disturbed."""
    clean = taken[0].is_clean
    return 2 * sum(clean) < len(clean)


def are_tight(taken: Sequence[Timing]) -> bool:
    """Whether the intervals of all ratios to the first are within `TIGHT`; never for one time."""
    ratios = _ratios(taken, sampled)
    return bool(ratios) and all(r.high - r.low <= 2 * TIGHT * r.ratio for r in ratios)


def are_told(taken: Sequence[Timing]) -> bool:
    """Whether each is clearly `CLEARLY` times as fast as the first or clearly not, or all tight."""
    ratios = _ratios(taken, speedup)
    told = bool(ratios) and all(not r.low <= CLEARLY <= r.high for r in ratios)
    return told or are_tight(taken)


def _ratios(taken: Sequence[Timing], compare: Callable[[Timing, Timing], Speedup]) -> list[Speedup]:
    """Of the first to each other one; none where the machine was too busy so far."""
    try:
        return [compare(taken[0], timing) for timing in taken[1:]]
    except TooBusy:
        return []
