"""How fast fits are, as those made so far tell, and so which others there is time for."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnxcp.graph.sites import Site
from onnxcp.measure.time_budget import now
from onnxcp.optimization.run import Run
from onnxcp.plan import Candidate

JUDGEMENTS = 10  # of a search, as a rule


@dataclass(slots=True, eq=False)
class FitPace:
    """Seconds of drafts so far, several at once in threads. `end` is on the clock of
    `time_budget`; the first fit is always made, and tells nothing: it loads what fits need."""

    end: float
    parallel: int
    _rate: float = 0.0  # seconds for a number of a kernel, of the slowest fit so far
    _count: int = 0
    _is_told: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def affords(self, size: int) -> bool:
        """Whether the fit of a kernel of so many numbers would end in time."""
        return not self._count or now() + self._rate * size < self.end

    def note(self, size: int, seconds: float) -> None:
        """What a fit took."""
        with self._lock:
            self._count += 1
            if self._count > 1:
                self._rate = max(self._rate, seconds / size)

    def is_first(self) -> bool:
        """Whether there is an estimate for the first time."""
        with self._lock:
            is_first = self._rate > 0 and not self._is_told
            self._is_told = self._is_told or is_first
            return is_first

    def estimate(
        self, run: Run, sites: Sequence[Site], found: Mapping[str, Sequence[Candidate]]
    ) -> str:
        """What is still to do, for people: layers, fits, judgements, minutes."""
        fits = sum(len(found[site.name]) for site in sites)
        numbers = sum(len(found[site.name]) * site.kernel.size for site in sites)
        minutes = self._rate * numbers / self.parallel / 60
        text = (
            f"{len(sites)} layers, at most {fits} drafts of fits in about {minutes:.1f} min, "
            f"about {JUDGEMENTS} judgements"
        )
        if not run.time.is_limited:
            return text
        return f"{text}; {run.time.left / 60:.1f} min of the time budget are left"
