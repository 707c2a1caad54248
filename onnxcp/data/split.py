"""Which samples of `--data` calibrate, which search, and which judge the result.

The rule depends on how many samples there are and on nothing else, so that every command that
reads the same data gives every sample the same role. Samples are taken at equal distances,
because sources are often sorted by class:

- calibration: every fifth sample, every third where there are few, at most 1,024 in all;
- search: of the others, every third judges the plans that a search tries;
- evaluation: the rest judges the result, and has no part in how it was found.

A run notes its roles in the plan and in RUN.json (`record`); a later command takes them from
there (`from_record`) if it reads the same data, and judges on the same samples. Whether the data
are the same is told by the plan's hash of the calibration samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onnxcp.errors import PlanError

MOST_CALIBRATION = 1024  # samples
ENOUGH_TO_CALIBRATE = 16  # samples: with fewer a larger share calibrates
LARGEST_STEP, SMALLEST_STEP = 5, 3
SEARCH_STEP = 3


@dataclass(frozen=True, slots=True)
class SampleRoles:
    """Roles of `count` samples, numbered from 0: every `calibration_step`-th calibrates, none
    for 0; of the others every `search_step`-th searches, none for 0; the rest judges."""

    count: int
    calibration_step: int
    search_step: int

    @property
    def calibration(self) -> Sequence[int]:
        """Numbers of the samples that calibrate."""
        return range(0, self.count, self.calibration_step) if self.calibration_step else ()

    @property
    def search(self) -> Sequence[int]:
        """Numbers of the samples that a search is judged by: those of `evaluation` where
        nothing else is left."""
        return self._searching or self.evaluation

    @property
    def evaluation(self) -> Sequence[int]:
        """Numbers of the samples that judge the result."""
        searching, others = set(self._searching), self._others
        return [number for number in others if number not in searching] or self.calibration

    @property
    def is_held_out(self) -> bool:
        """Whether the samples that judge have no part in how the result was found."""
        return bool(self._others) and (not self.search_step or bool(self._searching))

    @property
    def _others(self) -> Sequence[int]:
        calibrating = set(self.calibration)
        return [number for number in range(self.count) if number not in calibrating]

    @property
    def _searching(self) -> Sequence[int]:
        """Never all of the others: at least one judges."""
        others = self._others
        return others[:: self.search_step] if self.search_step and len(others) > 1 else ()

    def record(self) -> dict[str, Any]:
        """As a plan and RUN.json have it."""
        return asdict(self)


def assign_roles(count: int, *, calibrates: bool, searches: bool) -> SampleRoles:
    """Roles of `count` samples: `calibrates` where no other samples do, `searches` where ranks
    are chosen."""
    step = min(LARGEST_STEP, max(SMALLEST_STEP, count // ENOUGH_TO_CALIBRATE))
    step = max(step, -(-count // MOST_CALIBRATION))
    return SampleRoles(count, step if calibrates else 0, SEARCH_STEP if searches else 0)


def from_record(found: Mapping[str, Any]) -> SampleRoles:
    """The roles that a run noted.

    Raises:
        PlanError: they are not what a run notes.
    """
    try:
        roles = SampleRoles(**found)
    except TypeError:
        roles = SampleRoles(-1, -1, -1)
    numbers = (roles.count, roles.calibration_step, roles.search_step)
    if any(type(number) is not int or number < 0 for number in numbers):
        raise PlanError(
            f"sample roles {dict(found)}: are not what a run notes; make the plan again"
        )
    return roles
