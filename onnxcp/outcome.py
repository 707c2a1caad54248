"""What a run found, before it is decided what becomes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onnxcp.benchmark import Timing
from onnxcp.latency import Latency
from onnxcp.lessons import Taught
from onnxcp.plan import Budget, Plan
from onnxcp.report.record import (
    AccuracyRecord,
    ParetoRecord,
    PlanRecord,
    TrialRecord,
    VerificationRecord,
)
from onnxcp.table import Table


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
    """What training was worth. `before` is the same plan's accuracy without it, `errors` are of
    the kernels that its chains stand for now, by site; `without` is what a search without
    training came to. All are empty where no training led to a model."""

    taught: Taught | None = None
    before: AccuracyRecord | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    trials: tuple[TrialRecord, ...] = ()
    without: "Outcome | None" = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a run found. `timings` are of the original and the rewritten model; the fields
    that are None were not measured, because there was no plan, or nothing to measure with."""

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
