"""The split of `data` into calibration set, search set and evaluation set.

The rule depends only on the number of samples, so that every command that reads the same data
gives every sample the same role. Samples are taken at equal distances, because sources are often
sorted by class:

- calibration set: every fifth sample, every third if there are few, at most 1,024 in all;
- search set: every third of the others; compares the plans of a search;
- evaluation set: the rest; judges the result, and has no part in how it was found.

A run records its roles in the plan and in RUN.json (`record`). A later command reads them there
(`from_record`) and evaluates on the same samples. The plan's hash of the calibration samples
shows whether the data are the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onnxcp.errors import PlanError

MAX_CALIBRATION_SAMPLES = 1024
ENOUGH_CALIBRATION_SAMPLES = 16  # below it, a larger share of the samples calibrates
MAX_CALIBRATION_STEP, MIN_CALIBRATION_STEP = 5, 3  # every fifth to every third sample
SEARCH_STEP = 3


@dataclass(frozen=True, slots=True)
class SampleRoles:
    """Roles of `count` samples, numbered from 0.

    Every `calibration_step`-th sample is in the calibration set, every `search_step`-th of the
    others in the search set, and the rest in the evaluation set. A step of 0 means an empty set.
    """

    count: int
    calibration_step: int
    search_step: int

    @property
    def calibration(self) -> Sequence[int]:
        """Numbers of the calibration samples."""
        return range(0, self.count, self.calibration_step) if self.calibration_step else ()

    @property
    def search(self) -> Sequence[int]:
        """Numbers of the search samples: the same as `evaluation` if there are no others."""
        return self._searching or self.evaluation

    @property
    def evaluation(self) -> Sequence[int]:
        """Numbers of the evaluation samples: the same as `calibration` if there are no others."""
        searching, remaining = set(self._searching), self._not_calibrating
        return [number for number in remaining if number not in searching] or self.calibration

    @property
    def is_held_out(self) -> bool:
        """Whether the evaluation samples have no part in how the result was found."""
        return bool(self._not_calibrating) and (not self.search_step or bool(self._searching))

    @property
    def _not_calibrating(self) -> Sequence[int]:
        calibrating = set(self.calibration)
        return [number for number in range(self.count) if number not in calibrating]

    @property
    def _searching(self) -> Sequence[int]:
        """Search samples; never all that are left, so that at least one evaluates."""
        remaining = self._not_calibrating
        return remaining[:: self.search_step] if self.search_step and len(remaining) > 1 else ()

    def record(self) -> dict[str, Any]:
        """The roles as a plan and RUN.json hold them."""
        return asdict(self)


def assign_roles(count: int, *, calibrates: bool, searches: bool) -> SampleRoles:
    """Roles of `count` samples.

    `calibrates` if no other samples are given for calibration; `searches` if ranks are chosen.
    """
    step_for_enough = max(MIN_CALIBRATION_STEP, count // ENOUGH_CALIBRATION_SAMPLES)
    step = max(min(MAX_CALIBRATION_STEP, step_for_enough), -(-count // MAX_CALIBRATION_SAMPLES))
    return SampleRoles(count, step if calibrates else 0, SEARCH_STEP if searches else 0)


def from_record(fields: Mapping[str, Any]) -> SampleRoles:
    """The roles that a run recorded.

    Raises:
        PlanError: a field is missing or unknown, or not a whole number of at least 0.
    """
    try:
        roles = SampleRoles(**fields)
    except TypeError:
        roles = SampleRoles(-1, -1, -1)
    numbers = (roles.count, roles.calibration_step, roles.search_step)
    if any(type(number) is not int or number < 0 for number in numbers):
        raise PlanError(f"sample roles {dict(fields)}: invalid; make the plan again")
    return roles
