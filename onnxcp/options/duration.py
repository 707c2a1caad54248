"""How long models are timed."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from onnxcp.errors import UsageError
from onnxcp.options.option import Option

MOST_TURNS = 1_000_000
LONGEST = 86_400.0  # seconds at one batch size


@dataclass(frozen=True, slots=True)
class DurationOptions:
    """At least `iterations` turns and at least `duration` seconds, after `warmup` turns.

    Raises:
        UsageError: a number out of bounds.
    """

    PANEL: ClassVar[str | None] = None

    warmup: Annotated[int, Option("Warm-up runs, which are not counted.", metavar="N")] = 10
    iterations: Annotated[int, Option("Run at least N times.", metavar="N")] = 100
    duration: Annotated[float, Option("Run at least S seconds.", metavar="S")] = 3.0

    def __post_init__(self) -> None:
        if not 0 <= self.duration <= LONGEST:
            raise UsageError(f"<<duration={self.duration:g}>>: give 0 to {LONGEST:.0f} seconds")
        if not 0 <= self.warmup <= MOST_TURNS:
            raise UsageError(f"<<warmup={self.warmup}>>: give 0 to {MOST_TURNS}")
        if not 8 <= self.iterations <= MOST_TURNS:
            raise UsageError(f"<<iterations={self.iterations}>>: give 8 to {MOST_TURNS}")
