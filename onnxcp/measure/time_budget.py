"""What `time_budget` leaves: deadlines of the stages of a run, and what each has taken.

All of a run counts, from reading the model to the last benchmark. Stages share the budget by
experience: what one does not use is left to the next, and each gets a little even when it is late,
so that one plan is judged whatever the machine is doing. As long as no chain is measured faster,
the later ones have nothing to do, and timing goes on in their time. Times are seconds.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from onnxcp.measure.timing import PATIENCE
from onnxcp.progress import NOTE, Progress

ENDS = {  # of the budget, at which a stage should be over: heuristics
    "timing": 0.32,
    "calibration": 0.45,
    "fits": 0.62,
    "probes": 0.7,
}
LEAST = 0.07  # of the budget, for a stage that begins late
LATER = 4  # stages between timing and the last benchmark: calibration, fits, probes, judgements
BENCHMARK = 0.08  # of the budget, for the last benchmark

clock: Callable[[], float] = time.monotonic


def now() -> float:
    """Seconds on the clock that deadlines are on."""
    return clock()


@dataclass(slots=True, eq=False)
class TimeBudget:
    """One run's time. `stages` holds what each stage has taken so far, in the order they began."""

    seconds: float = math.inf
    begun: float = field(default_factory=now)
    stages: dict[str, float] = field(default_factory=dict)
    _stage: str = "load"
    _since: float = field(default_factory=now)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_limited(self) -> bool:
        return math.isfinite(self.seconds)

    @property
    def left(self) -> float:
        return self.begun + self.seconds - now()

    def end_of(self, stage: str) -> float:
        """When a stage that begins now should be over, on the clock."""
        if not self.is_limited:
            return math.inf
        planned = self.begun + ENDS[stage] * self.seconds
        return max(planned, now() + LEAST * self.seconds)

    @property
    def timing_end_at_last(self) -> float:
        """When timing should be over even where no chain is faster so far, on the clock: what
        comes after it gets the least then."""
        return self.begun + (1 - BENCHMARK - LEAST * LATER) * self.seconds

    @property
    def menu_end(self) -> float:
        """When the search should begin, on the clock."""
        return self.begun + ENDS["probes"] * self.seconds

    @property
    def judging_end(self) -> float:
        """When the last plan should be judged, on the clock: a benchmark follows."""
        return self.begun + (1 - BENCHMARK) * self.seconds

    def at_most(self, seconds: float, least: float) -> float:
        """So many seconds, or what is left, but not under a least number; less where time is
        limited, for turns on a busy machine take longer."""
        return max(least, min(seconds, self.left / PATIENCE))

    def watched(self, progress: Progress) -> Progress:
        """The same progress, which also notes how long every stage takes."""

        def show(phase: str, done: int, total: int) -> None:
            if total != NOTE:
                self._begin(phase)
            progress(phase, done, total)

        return show

    def taken(self, stage: str) -> float:
        """What a stage has taken till another one began."""
        with self._lock:
            return self.stages.get(stage, 0.0)

    def close(self) -> dict[str, float]:
        """What every stage has taken, the present one included."""
        self._begin(self._stage)
        return dict(self.stages)

    def _begin(self, stage: str) -> None:
        with self._lock:
            moment = now()
            self.stages[self._stage] = self.stages.get(self._stage, 0.0) + moment - self._since
            self._stage, self._since = stage, moment
