"""How fast a model runs, and whether a change in speed is more than noise.

Times are seconds of one inference, warm-up runs already dropped. Several models are compared by
running them in turns, and what is compared are the two runs of one turn: a drifting clock rate, a
neighbor in the same cache or on the other half of a core, none of which any clock shows, fall on
both. Runs that lost time to other work (`stopwatch`) do not count, nor does the run of the other
model in the same turn: a short run fits between two interruptions and a long one does not, so
that medians of whatever remains of each would make the long one look slower than it is.

Where too few turns are left, one thread's processor time is compared instead, in sums over all
turns: an interruption costs it no more than caches to fill again, and falls on both models in
proportion to their time, but for chance, so that it must be known well. This holds for one
thread on the CPU alone. Of anything else nothing can be told on so busy a machine, and nothing
is (`TooBusy`).
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from onnxcp.arrays import Float64
from onnxcp.errors import TooBusy
from onnxcp.measure.disturbance import Disturbance, are_enough, shared, why_busy, why_host
from onnxcp.measure.stopwatch import HOST_SHARE, Run, Stopwatch

NOISY = 0.2  # interquartile range over median: above, the report warns
BLOCKS = 20  # of consecutive turns: what is resampled for an interval
# Two sessions of one model differ by up to 0.1 % here, for good, as memory falls out.
NO_DIFFERENCE = 0.01  # of a ratio from 1: below it means nothing, however sure
UNTOLD = 0.1  # width of an interval over the ratio: wider and around 1 it tells nothing
AT_ONCE = 2**22  # numbers that resampling holds
MIN_TURNS = 8  # that are taken whatever the time
# Two sessions of one model were seen to differ by 6 % for as long as they lasted, where five other
# programs filled the caches and left this one a fifth of a core.
STRAIN = 0.06  # by which an interval is widened for each core's worth of time lost
LOOKS = 8  # at whether there are enough, while their number doubles
DOUBT = 0.04  # half of the interval over a ratio of processor times: above, it is none to tell
PATIENCE = 3  # times as many turns, and as long, where too few were undisturbed


@dataclass(frozen=True, slots=True)
class Timing:
    """Repeated runs of one model, in the order they were taken: wall seconds, the thread's own
    processor seconds where those are what the model costs, and which runs lost time. Without
    `disturbed` none did."""

    seconds: tuple[float, ...]
    processor: tuple[float, ...] = ()
    disturbed: tuple[bool, ...] = ()

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "Timing":
        """Of runs as they were taken."""
        used = [run.processor for run in runs if run.processor is not None]
        disturbed = [run.is_disturbed for run in runs]
        return cls(tuple(run.wall for run in runs), tuple(used), tuple(disturbed))

    def __add__(self, other: "Timing") -> "Timing":
        """All runs of both, which are of one model."""
        used = self.processor + other.processor if self.processor and other.processor else ()
        disturbed = (*self.is_clean, *other.is_clean)
        return Timing(self.seconds + other.seconds, used, tuple(not clean for clean in disturbed))

    @property
    def is_clean(self) -> tuple[bool, ...]:
        """Of every run, whether nothing disturbed it."""
        return tuple(not d for d in self.disturbed) or (True,) * len(self.seconds)

    @property
    def counted(self) -> tuple[float, ...]:
        """The times that count: of undisturbed runs; where those are too few, processor time."""
        clean = self.is_clean
        if self.processor and not are_enough(sum(clean), len(clean)):
            return self.processor
        return tuple(s for s, c in zip(self.seconds, clean, strict=True) if c) or self.seconds

    @property
    def median(self) -> float:
        return statistics.median(self.counted)

    @property
    def is_noisy(self) -> bool:
        low, high = np.percentile(self.counted, [25, 75])
        return bool(high - low > NOISY * self.median)

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.counted, percent))

    def milliseconds(self) -> dict[str, float]:
        """The figures a report shows."""
        times = self.counted
        figures = {f"p{p}": self.percentile(p) for p in (50, 90, 95, 99)}
        return {
            "mean": 1e3 * statistics.fmean(times),
            "min": 1e3 * min(times),
            "std": 1e3 * (statistics.stdev(times) if len(times) > 1 else 0.0),
            **{name: 1e3 * value for name, value in figures.items()},
        }


@dataclass(frozen=True, slots=True)
class Speedup:
    """Old time over new: 2.0 is twice as fast, below 1.0 is slower."""

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

    @property
    def is_told(self) -> bool:
        """Whether there is a difference, or surely no large one."""
        return self.is_clear or self.high - self.low <= UNTOLD * self.ratio

    def verdict(self) -> str:
        """In words, as a report says it."""
        if not self.is_told:
            return f"too noisy to tell ({self.low:.2f} to {self.high:.2f})"
        if not self.is_clear:
            return "no significant difference"
        return f"{self.ratio:.2f}× faster" if self.is_faster else f"{1 / self.ratio:.2f}× slower"


def take_turns(
    subjects: Sequence[Callable[[], object]],
    watch: Stopwatch,
    *,
    turns: int,
    warmup: int = 3,
    seconds: float = float("inf"),
    must_tell: bool = True,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Timing, ...]:
    """Time callables in turns, the order reversed every other turn; each must be synchronous.

    Stops after `turns`, or `seconds` after the warm-up and eight turns; where too few
    of them are undisturbed, only after up to `PATIENCE` times as many. Without `must_tell` they
    are taken as they come, to be added to others.

    Raises:
        TooBusy: the times could not be compared all the same.
    """
    taken: list[list[Run]] = [[] for _ in subjects]
    begun, patience, look = watch(), PATIENCE if must_tell else 1, 0
    for turn in range(-warmup, patience * turns):
        if turn == 0:
            watch.prepare()
            begun = watch()  # a first run may take seconds: a device chooses its algorithms
        order = range(len(subjects)) if turn % 2 else reversed(range(len(subjects)))
        for which in order:
            watch.start()
            subjects[which]()
            run = watch.stop()
            if turn >= 0:
                taken[which].append(run)
        progress(min(turn + 1, turns))
        spent = (watch() - begun) / seconds
        is_over = turn + 1 >= turns or (turn + 1 >= MIN_TURNS and spent > 1)
        if is_over and turn >= look:
            if spent > patience or not must_tell or _is_known(taken):
                break
            look = turn + max(1, turn // LOOKS)
    timings = tuple(map(Timing.of, taken))
    if must_tell:
        refuse_busy(timings)
        _refuse_doubt(timings)
        if watch.host_share() > HOST_SHARE:
            raise TooBusy(why_host(watch.host_share()))
    return timings


def _is_known(taken: Sequence[Sequence[Run]]) -> bool:
    """Whether times can be compared, and processor times are known well where those are."""
    timings = tuple(map(Timing.of, taken))
    return _can_tell(timings) and not _doubtful(timings)


def _doubtful(timings: Sequence[Timing]) -> bool:
    """Whether some ratio of processor times is not known well."""
    pairs = [p for p in combinations(timings, 2) if disturbance(*p).by_processor]
    ratios = [sampled(*pair, resamples=200) for pair in pairs]
    return any(r.high - r.low > 2 * DOUBT * r.ratio for r in ratios)


def _refuse_doubt(timings: Sequence[Timing]) -> None:
    """Raises TooBusy for processor times that are not known well."""
    if _doubtful(timings):
        raise TooBusy(why_busy([t.is_clean for t in timings], is_one_thread=True))


def _can_tell(timings: Sequence[Timing]) -> bool:
    """Whether times can be compared: enough are undisturbed, or there is processor time, which
    of one model alone says too little."""
    clean = [timing.is_clean for timing in timings]
    if are_enough(shared(clean), len(clean[0])):
        return True
    return len(timings) > 1 and all(timing.processor for timing in timings)


def refuse_busy(timings: Sequence[Timing]) -> None:
    """Raises TooBusy for times that cannot be compared."""
    if not _can_tell(timings):
        is_one_thread = all(timing.processor for timing in timings)
        raise TooBusy(why_busy([t.is_clean for t in timings], is_one_thread=is_one_thread))


def disturbance(old: Timing, new: Timing) -> Disturbance:
    """How much of two timings taken in turns was left out, and what was compared."""
    turns = len(old.seconds)
    clean = sum(map(min, old.is_clean, new.is_clean))
    has_processor = bool(old.processor and new.processor)
    return Disturbance(turns - clean, turns, has_processor and not are_enough(clean, turns))


def speedup(old: Timing, new: Timing) -> Speedup:
    """Compare two timings taken in turns, with an interval that allows for what other work does
    to two sessions, and not to their runs one by one. Raises as `sampled`."""
    found, wider = sampled(old, new), 1 + STRAIN * strain(old, new)
    return Speedup(found.ratio, found.low / wider, found.high * wider)


def strain(old: Timing, new: Timing) -> float:
    """The share of the time, or of the turns where that is not known, that other work took."""
    if old.processor and new.processor:
        used, wall = sum(old.processor + new.processor), sum((*old.seconds, *new.seconds))
        return min(1.0, max(0.0, 1 - used / wall))
    found = disturbance(old, new)
    return found.disturbed / found.turns


def sampled(old: Timing, new: Timing, *, seed: int = 0, resamples: int = 1000) -> Speedup:
    """The median of the ratios within a turn, or the ratio of processor times where too few turns
    are undisturbed; the interval is a block bootstrap over turns.

    Blocks of consecutive turns are drawn, because a busy neighbor slows several in a row.

    Raises:
        ValueError: they hold different numbers of runs, or fewer than four.
        TooBusy: too few turns are undisturbed, and there is no processor time.
    """
    if len(old.seconds) != len(new.seconds) or len(old.seconds) < 4:
        counts = f"{len(old.seconds)} and {len(new.seconds)}"
        raise ValueError(f"need two equally long timings of 4 runs or more, got {counts}")
    refuse_busy((old, new))
    if disturbance(old, new).by_processor:
        return _of_sums(np.array(old.processor), np.array(new.processor), seed, resamples)
    return _of_turns(old, new, seed, resamples)


def _of_turns(old: Timing, new: Timing, seed: int, resamples: int) -> Speedup:
    """By the ratios within undisturbed turns, those of both orders brought to one middle: each
    model runs faster after itself, in every other turn."""
    clean = np.array(old.is_clean) & np.array(new.is_clean)
    ratios = (np.array(old.seconds) / np.array(new.seconds))[clean]
    is_odd = np.arange(len(clean))[clean] % 2 == 1
    if min(is_odd.sum(), (~is_odd).sum()) >= 4:
        apart = np.sqrt(np.median(ratios[is_odd]) / np.median(ratios[~is_odd]))
        ratios = ratios * np.where(is_odd, 1 / apart, apart)
    (medians,) = _resampled([ratios], np.median, seed, resamples)
    low, high = np.percentile(medians, [2.5, 97.5])
    return Speedup(float(np.median(ratios)), float(low), float(high))


def _of_sums(old: np.ndarray, new: np.ndarray, seed: int, resamples: int) -> Speedup:
    before, after = _resampled([old, new], np.sum, seed, resamples)
    low, high = np.percentile(before / after, [2.5, 97.5])
    return Speedup(float(old.sum() / new.sum()), float(low), float(high))


def median_interval(timing: Timing, *, seed: int = 0, resamples: int = 1000) -> tuple[float, float]:
    """95 % interval of a median, in seconds, by the same bootstrap."""
    (medians,) = _resampled([np.array(timing.counted)], np.median, seed, resamples)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)


def _resampled(
    times: Sequence[np.ndarray], figure: Callable[..., np.ndarray], seed: int, resamples: int
) -> list[Float64[np.ndarray, " resamples"]]:
    """A figure of each over the same resampled turns."""
    turns, rng = len(times[0]), np.random.default_rng(seed)
    length = max(1, turns // BLOCKS)
    starts = rng.integers(0, turns - length + 1, size=(resamples, -(-turns // length)))
    figures: list[list[np.ndarray]] = [[] for _ in times]
    for some in np.array_split(starts, -(-resamples * turns // AT_ONCE)):
        picked = (some[:, :, None] + np.arange(length)).reshape(len(some), -1)[:, :turns]
        for found, taken in zip(figures, times, strict=True):
            found.append(figure(taken[picked], axis=1))
    return [np.concatenate(found) for found in figures]
