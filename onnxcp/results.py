"""What a run did and measured, as one record: the content of RUN.json.

Times are milliseconds of one inference, multiply-adds those of one sample. `schema.json`
beside this module describes the same record to other programs; `SCHEMA_VERSION` grows
when a field changes its meaning or goes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA_VERSION = 1
KEPT = "kept"


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """The model before and after, counted in the files. `written` names what was written among
    its rivals; `still_read` are replaced layers whose weight others read, so that it stays beside
    the chain; `shortcuts` are strided slices with padding that became convolutions."""

    path: str
    sha256: str
    output: str | None  # None where nothing was written
    macs_before: int
    macs_after: int
    parameters_before: int
    parameters_after: int
    bytes_before: int = 0
    bytes_after: int = 0
    written: str | None = None
    still_read: tuple[str, ...] = ()
    shortcuts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SiteRecord:
    """One convolution or matrix product. `decision` is a form's name or "kept"; `floats` what
    of its chain is left in float in an int8 model, "windows" or "chain"."""

    name: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    decision: str
    reason: str
    macs_before: int | None
    macs_after: int | None
    kind: str = ""  # of the reason: a code of `reasons.Kind` or `sites.LEFT_ALONE`
    rank: int | None = None
    floats: str | None = None
    error: float | None = None
    outcome: str | None = None
    sensitivity_before: float | None = None
    sensitivity_after: float | None = None
    ms_before: float | None = None
    ms_after: float | None = None
    fit_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class OutputRecord:
    """One judged output: the mean of the metric over the samples, None where it does not judge
    this output; `change` is the relative L2 change against the original over all samples."""

    name: str
    after: float | None
    change: float


@dataclass(frozen=True, slots=True)
class AccuracyRecord:
    """`metric` "output-change" (the relative L2 change of the outputs) has no before and
    after; every other one is of `metrics.METRICS`, or a user's function. A sample's score is
    that of its worst output. `drop` is by how much the metric becomes worse, which is a rise
    where lower is better. `evidence` is what the interval says of the budget, "holds", "broken" or
    "open"; `enough` about how many samples would decide."""

    metric: str
    before: float | None
    after: float | None
    drop: float
    drop_ci: tuple[float, float] | None
    samples: int
    budget: float | None  # None: not judged
    data: str
    measured: bool  # False: on synthetic inputs, so no accuracy at all
    evidence: str | None = None
    enough: int | None = None
    outputs: tuple[OutputRecord, ...] = ()
    higher_is_better: bool = True

    @property
    def worsening(self) -> str:
        """What the metric does where it becomes worse: "drop" or "rise"."""
        return "drop" if self.higher_is_better else "rise"


@dataclass(frozen=True, slots=True)
class BaselineRecord:
    """How the original did before anything was made of it. `by` says what judged: a metric with
    labels, "first normalization" (`value` is the size of what reaches it, in its units), "classes
    named", or None where nothing could; `chance` is what a guess has. `is_good` says that it is
    clearly as it should be; a `finding` that it is not, which was accepted."""

    by: str | None = None
    value: float | None = None
    interval: tuple[float, float] | None = None
    chance: float | None = None
    samples: int = 0
    is_good: bool = False
    finding: str | None = None


@dataclass(frozen=True, slots=True)
class LatencyRecord:
    """The latency of the whole model before and after, in milliseconds by statistic."""

    before: Mapping[str, float]
    after: Mapping[str, float]
    speedup: float
    speedup_ci: tuple[float, float]
    turns: int
    threads: int
    provider: str
    shapes: Mapping[str, tuple[int, ...]]
    threads_from: str = "given"  # what their number follows from
    disturbed: int = 0  # turns in which other work ran
    by_processor: bool = False  # whether processor time was compared for that


@dataclass(frozen=True, slots=True)
class VerificationRecord:
    """Surgery: the rewritten model against the original with reconstructed kernels."""

    ok: bool
    relative_l2: float
    tolerance: float
    samples: int


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """One plan that a search judged: how many layers it replaces, its time by the latency
    table, the squared relative change of the output predicted and seen, and what it loses on
    the samples of the search, in the budget's unit."""

    layers: int
    ms: float
    predicted: float
    change: float
    loss: float


@dataclass(frozen=True, slots=True)
class CheckRecord:
    """Whole-model milliseconds under a plan, by the latency table and measured; None where the
    layers save more than the whole model takes, by their times."""

    predicted: float | None
    measured: float


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """How a plan was found. `samples` counts those that calibrated, searched and judged in the
    end; the last two are the same where `held_out` is false. `tried` counts plans judged in
    the end. `scale` is what chains save in whole models over what the table says, which
    `checks` show; `foreign` in what this machine differs from the one the table is of."""

    strategy: str
    objective: str
    samples: Mapping[str, int]
    held_out: bool
    tried: int
    is_late: bool
    seconds: float
    predicted_ms: float
    scale: float
    checks: tuple[CheckRecord, ...]
    foreign: tuple[str, ...]
    judged: tuple[PlanRecord, ...]
    is_reliable: bool = True  # whether the table's times add up to whole models


@dataclass(frozen=True, slots=True)
class ParetoRecord:
    """A plan along time against accuracy, with the model it makes."""

    path: str
    speedup: float
    ms: float
    drop: float
    drop_ci: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """The results of one epoch of training.

    `loss` is the mean over its steps, `held_out` the mean loss over the validation set.
    `agreement` is the share of validation samples with the original's top class, None if outputs
    are not class scores.
    """

    number: int
    loss: float
    held_out: float
    agreement: float | None


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One training of a search: how many layers its plan replaces, its time by the latency
    table, and what was left on the samples of the search: the loss in the budget's unit, and
    the squared relative change of the output."""

    layers: int
    ms: float
    epochs: int
    loss: float
    change: float


@dataclass(frozen=True, slots=True)
class FinetuneRecord:
    """What training was worth. `before` is the same plan's accuracy without it, None where no
    training led to the result; then `epochs` is empty. `rounded` are the epochs in int8 that
    follow. `without_accuracy` and `without_speedup` are of the plan that a search without
    training came to, None where there was none. `parity` is how far PyTorch's outputs were from
    the runtime's before the first step, relative L2."""

    epochs: tuple[EpochRecord, ...]
    best_epoch: int | None
    stopped: str | None
    parity: float | None
    recipe: Mapping[str, Any]
    samples: Mapping[str, int]
    before: AccuracyRecord | None
    without_accuracy: AccuracyRecord | None
    without_speedup: float | None
    trials: tuple[TrialRecord, ...]
    seconds: float
    rounded: tuple[EpochRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class RivalRecord:
    """What else could have been written: "int8 alone", "chains in int8" or "chains in float".
    `speedup` is over the original; `behind` how much faster the one that was found is, None
    where that was not measured."""

    name: str
    within: bool  # the budget
    drop: float
    ms: float | None
    speedup: float | None
    behind: tuple[float, float, float] | None  # ratio, and its 95 % interval


@dataclass(frozen=True, slots=True)
class PassRecord:
    """One exact pass: how many places it changes, and whether it was kept. `speedup`, with its
    95 % interval, is what it brought when it was added to the passes before it; None where it was
    not timed, and `reason` says why."""

    name: str
    words: str
    places: int
    kept: bool
    reason: str
    speedup: float | None = None
    speedup_ci: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class QuantizationRecord:
    """What int8 is and costs. `chained` is what the chains alone lose, before; None where there
    are none. `scheme` says how activations and weights are stored and ranges are chosen."""

    scheme: Mapping[str, Any]
    samples: int
    chained: AccuracyRecord | None
    rivals: tuple[RivalRecord, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """One run of `optimize`."""

    tool: Mapping[str, str]
    command: str
    verdict: str  # one sentence
    model: ModelRecord
    environment: Mapping[str, Any]
    provider: str
    settings: Mapping[str, Any]
    sites: tuple[SiteRecord, ...]
    plan: Mapping[str, Mapping[str, Any]]
    exit_code: int
    accuracy: AccuracyRecord | None = None
    latency: LatencyRecord | None = None
    verification: VerificationRecord | None = None
    search: SearchRecord | None = None  # None where ranks were given
    pareto: tuple[ParetoRecord, ...] = ()
    precision: str = "float32"
    finetune: FinetuneRecord | None = None  # None where it was not asked for
    quantization: QuantizationRecord | None = None  # None where int8 was not asked for
    passes: tuple[PassRecord, ...] | None = None  # None where exact passes were not asked for
    baseline: BaselineRecord = field(default_factory=BaselineRecord)
    warnings: tuple[str, ...] = field(default_factory=tuple)
    reason: Mapping[str, Any] = field(default_factory=dict)  # of the verdict: its kind, and facts
    stages: Mapping[str, float] = field(default_factory=dict)  # seconds of the run, in order
    schema_version: int = SCHEMA_VERSION

    def document(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return asdict(self)

    @property
    def replaced(self) -> tuple[SiteRecord, ...]:
        return tuple(s for s in self.sites if s.decision != KEPT)
