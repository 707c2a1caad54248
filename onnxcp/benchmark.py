"""How fast a model runs, and whether a change in speed is more than noise.

Times are wall-clock seconds of one inference, warm-up runs already dropped. Several
models are compared by running them in turns, so that a drifting clock or a busy neighbour
falls on all of them.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxcp.arrays import Float64

NOISY = 0.2  # interquartile range over median: above, the report warns
BLOCKS = 20  # of consecutive turns: what is resampled for an interval
# Two sessions of one model differ by up to 0.1 % here, for good, as memory falls out.
NO_DIFFERENCE = 0.01  # of a ratio from 1: below it means nothing, however sure
AT_ONCE = 2**22  # numbers that resampling holds


@dataclass(frozen=True, slots=True)
class Timing:
    """Repeated runs of one model."""

    seconds: tuple[float, ...]  # in the order they were taken

    def __add__(self, other: "Timing") -> "Timing":
        """All runs of both, which are of one model."""
        return Timing(self.seconds + other.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def is_noisy(self) -> bool:
        low, high = np.percentile(self.seconds, [25, 75])
        return bool(high - low > NOISY * self.median)

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.seconds, percent))

    def milliseconds(self) -> dict[str, float]:
        """The figures a report shows."""
        figures = {f"p{p}": self.percentile(p) for p in (50, 90, 95, 99)}
        return {
            "mean": 1e3 * statistics.fmean(self.seconds),
            "min": 1e3 * min(self.seconds),
            "std": 1e3 * (statistics.stdev(self.seconds) if len(self.seconds) > 1 else 0.0),
            **{name: 1e3 * value for name, value in figures.items()},
        }


@dataclass(frozen=True, slots=True)
class Speedup:
    """Ratio of median times, old over new: 2.0 is twice as fast, below 1.0 is slower."""

    ratio: float
    low: float  # 95 % interval
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval lies on one side of 1, and not next to it."""
        return self.is_faster or self.high < 1 - NO_DIFFERENCE

    @property
    def is_faster(self) -> bool:
        """Whether it is clearly faster: what is, `verdict` calls so, and nothing else."""
        return self.low > 1 + NO_DIFFERENCE

    def verdict(self) -> str:
        """In words, as a report says it."""
        if not self.is_clear:
            return "no significant difference"
        return f"{self.ratio:.2f}× faster" if self.is_faster else f"{1 / self.ratio:.2f}× slower"


def take_turns(
    subjects: Sequence[Callable[[], object]],
    clock: Callable[[], float],
    *,
    turns: int,
    warmup: int = 3,
    seconds: float = float("inf"),
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Timing, ...]:
    """Time callables in turns, the order reversed every other turn; each must be synchronous.

    Stops after `turns`, or once `seconds` have passed and eight turns are taken. `clock`
    gives seconds (`time.perf_counter`); tests pass one that counts.
    """
    taken: list[list[float]] = [[] for _ in subjects]
    begin = clock()
    for turn in range(-warmup, turns):
        order = range(len(subjects)) if turn % 2 else reversed(range(len(subjects)))
        for which in order:
            start = clock()
            subjects[which]()
            if turn >= 0:
                taken[which].append(clock() - start)
        progress(turn + 1)
        if turn >= 7 and clock() - begin > seconds:
            break
    return tuple(Timing(tuple(t)) for t in taken)


def speedup(old: Timing, new: Timing, *, seed: int = 0, resamples: int = 1000) -> Speedup:
    """Compare two timings taken in turns; the interval is a block bootstrap over turns.

    Blocks of consecutive turns are drawn, because a busy neighbour slows several in a row.

    Raises:
        ValueError: they hold different numbers of runs, or fewer than four.
    """
    if len(old.seconds) != len(new.seconds) or len(old.seconds) < 4:
        counts = f"{len(old.seconds)} and {len(new.seconds)}"
        raise ValueError(f"need two equally long timings of 4 runs or more, got {counts}")
    before, after = _resampled([old, new], seed, resamples)
    low, high = np.percentile(before / after, [2.5, 97.5])
    return Speedup(old.median / new.median, float(low), float(high))


def median_interval(timing: Timing, *, seed: int = 0, resamples: int = 1000) -> tuple[float, float]:
    """95 % interval of a median, in seconds, by the same bootstrap."""
    (medians,) = _resampled([timing], seed, resamples)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)


def _resampled(
    timings: Sequence[Timing], seed: int, resamples: int
) -> list[Float64[np.ndarray, " resamples"]]:
    """Medians of each timing over the same resampled turns."""
    turns, rng = len(timings[0].seconds), np.random.default_rng(seed)
    length = max(1, turns // BLOCKS)
    starts = rng.integers(0, turns - length + 1, size=(resamples, -(-turns // length)))
    times = [np.array(timing.seconds) for timing in timings]
    medians: list[list[np.ndarray]] = [[] for _ in timings]
    for some in np.array_split(starts, -(-resamples * turns // AT_ONCE)):
        picked = (some[:, :, None] + np.arange(length)).reshape(len(some), -1)[:, :turns]
        for found, taken in zip(medians, times, strict=True):
            found.append(np.median(taken[picked], axis=1))
    return [np.concatenate(found) for found in medians]
