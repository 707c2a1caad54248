"""What a run found, before it is decided what becomes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onnxcp.fitting.plan_chains import NO_CHAINS, Chains
from onnxcp.latency.candidates import Latency
from onnxcp.latency.table import Table
from onnxcp.measure.timing import Timing
from onnxcp.optimization.reasons import Reason
from onnxcp.plan import Budget, Plan
from onnxcp.quantization.precision import FLOAT32
from onnxcp.results import (
    AccuracyRecord,
    ParetoRecord,
    PlanRecord,
    RivalRecord,
    TrialRecord,
    VerificationRecord,
)
from onnxcp.training.distill import Distilled


@dataclass(frozen=True, slots=True, eq=False)
class Trail:
    """How a search went. `tried` counts plans judged on the samples held out, `is_late` says
    that the time budget ended it; `predicted` are the seconds of the whole model by the table."""

    judged: tuple[PlanRecord, ...] = ()
    tried: int = 0
    is_late: bool = False
    seconds: float = 0.0
    predicted: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Recovered:
    """What training was worth; `rounded` is what was trained on in int8. `before` is the same
    plan's accuracy without it, `errors` are of the kernels that its chains stand for now, by
    site; `without` is what a search without training came to. All are empty where no training
    led to a model."""

    taught: Distilled | None = None
    before: AccuracyRecord | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    trials: tuple[TrialRecord, ...] = ()
    without: "Outcome | None" = None
    seconds: float = 0.0
    rounded: Distilled | None = None

    @property
    def of_another(self) -> "Recovered":
        """What there is to say where another model than the trained one is written."""
        return Recovered(trials=self.trials, without=self.without, seconds=self.seconds)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a run found. `timings` are of the original and the model that is deployed, which is
    made of the one that is `staged` in float, with `chains` as they were fitted; `chained` is the
    accuracy of that one where it is another. The fields that are None were not measured, because
    there was no plan, or nothing to measure with. `rivals` are what else was in question, and how
    much faster this is. `kept` says of layers why they stay, `why` of a run why it found no plan,
    and `busy` why there are no timings where other work on the machine left none to tell by."""

    plan: Plan
    latency: Mapping[str, Latency]
    budget: Budget
    table: Table | None = None
    trail: Trail | None = None
    accuracy: AccuracyRecord | None = None
    verification: VerificationRecord | None = None
    timings: tuple[Timing, Timing] | None = None
    staged: Path | None = None
    front: tuple[ParetoRecord, ...] = ()
    recovered: Recovered | None = None
    precision: str = FLOAT32
    chained: AccuracyRecord | None = None
    rivals: tuple[RivalRecord, ...] = ()
    kept: Mapping[str, Reason] = field(default_factory=dict)
    why: Reason | None = None
    busy: str | None = None
    chains: Chains = NO_CHAINS

    @property
    def plans_judged(self) -> int:
        """How many plans the samples that judge in the end have seen."""
        return 1 if self.trail is None else max(1, self.trail.tried)

    @property
    def is_within(self) -> bool:
        """Whether it is within the budget that it was judged by, if there is one."""
        found = self.accuracy
        return found is None or found.budget is None or found.drop <= found.budget


def name_of(outcome: Outcome) -> str:
    """What an outcome is, among its rivals."""
    if not outcome.plan.choices:
        return f"{outcome.precision} alone"
    return f"chains in {'float' if outcome.precision == FLOAT32 else outcome.precision}"
