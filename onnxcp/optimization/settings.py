"""The options of `optimize`, and which of them exclude each other."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcp.data.roles import Sources
from onnxcp.errors import UsageError
from onnxcp.fitting.statistics import MEMORY
from onnxcp.forms import AUTO, FORMS
from onnxcp.forms.solvers.device import DEVICES
from onnxcp.measure.evaluator import Limits
from onnxcp.plan import Recipe, from_json
from onnxcp.quantization.precision import FLOAT32, named, refuse_without_kernels
from onnxcp.runtime.providers import Target
from onnxcp.search import STRATEGIES

if TYPE_CHECKING:
    from onnxcp.training.recipe import Recipe as Training


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of `optimize`."""

    model: Path
    output: Path
    target: Target
    precision: str = FLOAT32  # of the model that is written
    raise_opset: bool = False  # allowed, where int8 needs it
    sources: Sources = field(default_factory=Sources)
    limits: Limits = field(default_factory=Limits)
    form: str = "auto"
    strategy: str = "knapsack"
    target_speedup: float | None = None
    latency: Path | None = None  # a table of another run or machine
    time_budget: float | None = None  # seconds, of the search
    work_dir: Path | None = None
    resume: bool = False
    pareto: Path | None = None  # a folder for plans along time against accuracy
    ranks: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    plan: Path | None = None
    seed: int = 0
    turns: int = 100  # of the whole-model benchmark
    allow_unchanged: bool = False
    jobs: int = 1  # fits at once, in as many processes
    cluster: str | None = None  # a Dask scheduler's address: fits and evaluations run there
    fit_device: str = "cpu"
    cache: Path | None = None  # the folder of fits that outlive the run
    correct_bias: bool = True
    sequential: bool = False
    calibration_memory: int = MEMORY  # bytes
    accept_baseline: bool = False  # go on where the original is at chance
    training: "Training | None" = None  # how plans are trained; None: they are not
    overwrite: bool = False  # files that exist may be replaced
    reports: tuple[Path, ...] = ()  # written together with the model
    also_read: tuple[Path, ...] = ()  # files that the options came from

    def __post_init__(self) -> None:
        if self.form not in ("auto", *FORMS):
            raise UsageError(f"--form {self.form}: unknown; choose auto, {', '.join(FORMS)}")
        if self.strategy not in STRATEGIES:
            raise UsageError(f"--strategy {self.strategy}: unknown; choose {', '.join(STRATEGIES)}")
        self._refuse_precision()
        if self.jobs < 1:
            raise UsageError(f"--jobs {self.jobs}: must be at least 1")
        if self.target_speedup is not None and not 1 < self.target_speedup < 1000:
            raise UsageError(f"--target-speedup {self.target_speedup:g}: give more than 1, as 2.0")
        if self.time_budget is not None and self.time_budget <= 0:
            raise UsageError(f"--time-budget {self.time_budget:g}: give some seconds, or 10m")
        if self.resume and self.work_dir is None:
            raise UsageError("--resume: needs the --work-dir of the run to go on with")
        self._refuse_forced()
        if self.plan is not None and self.ranks:
            raise UsageError("--plan and --rank exclude each other: a plan names every rank")
        if self.fit_device not in DEVICES:
            raise UsageError(
                f"--fit-device {self.fit_device}: unknown; choose one of {', '.join(DEVICES)}"
            )
        if self.cluster is not None and self.fit_device != "cpu":
            raise UsageError(
                f"--fit-device {self.fit_device} and --cluster exclude each other: the workers "
                "of a cluster fit on their processors"
            )
        if not self.sources.data:
            self.limits.refuse_without_data()
        self._refuse_training()

    def _refuse_precision(self) -> None:
        """Raises UsageError for a precision that there is not, or what it excludes."""
        refuse_without_kernels(named(self.precision), self.target)
        if self.precision == FLOAT32:
            return
        if self.target_speedup is not None and self.latency is not None:
            raise UsageError(
                "--target-speedup is over the model in float, which a --latency table of "
                f"{self.precision} does not know; leave one of them out"
            )
        if self.pareto is not None:
            raise UsageError(
                f"--pareto and --precision {self.precision} exclude each other: run them apart"
            )

    def _refuse_forced(self) -> None:
        """Raises UsageError for options of a search where there is none."""
        given = {
            "--target-speedup": self.target_speedup,
            "--latency": self.latency,
            "--time-budget": self.time_budget,
            "--pareto": self.pareto,
        }
        for option, value in given.items():
            if self.is_forced and value is not None:
                forced = "--rank" if self.ranks else "--plan"
                raise UsageError(f"{option}: ranks are given by {forced}, so nothing is searched")

    def _refuse_training(self) -> None:
        """Raises UsageError for what training excludes or needs."""
        if self.training is None:
            if self.sources.train:
                raise UsageError(f"--train {self.sources.train[0]}: goes with --finetune")
            return
        if not (self.sources.data or self.sources.train or self.sources.calibration):
            raise UsageError("--finetune needs samples: give --data, and --train to train on")
        if self.pareto is not None:
            raise UsageError("--pareto and --finetune exclude each other: run them one by one")
        if self.strategy != "knapsack" and not self.is_forced:
            raise UsageError(
                f"--strategy {self.strategy}: with --finetune plans are those of knapsack"
            )

    @property
    def forms(self) -> tuple[str, ...]:
        return AUTO if self.form == "auto" else (self.form,)

    @property
    def recipe(self) -> Recipe:
        """How fits are made, but for the samples; a replayed plan brings it all."""
        if self.plan is not None:
            return from_json(self.plan)[1]
        memory = self.calibration_memory
        return Recipe(self.seed, None, self.correct_bias, self.sequential, memory)

    @property
    def is_forced(self) -> bool:
        """Whether ranks are given, not searched."""
        return bool(self.ranks) or self.plan is not None
