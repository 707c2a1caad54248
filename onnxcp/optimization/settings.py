"""What a run of `optimize` is asked for: groups of options, and what they stand for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxcp.data.roles import Sources
from onnxcp.errors import PlanError, UsageError
from onnxcp.forms import named
from onnxcp.graph.io import existing
from onnxcp.graph.pass_table import PASSES
from onnxcp.measure.evaluator import Limits
from onnxcp.options.budget import BudgetOptions
from onnxcp.options.data import DataOptions
from onnxcp.options.fit import FitOptions
from onnxcp.options.option import Group, build, options_of
from onnxcp.options.plan import PlanOptions
from onnxcp.options.run import RunOptions
from onnxcp.options.target import PRECISIONS, TargetOptions
from onnxcp.options.training import TrainingOptions
from onnxcp.plan import Recipe, from_json
from onnxcp.quantization.precision import FLOAT32, refuse_without_kernels
from onnxcp.runtime.cores import usable
from onnxcp.runtime.providers import Target
from onnxcp.search import STRATEGIES
from onnxcp.training.recipe import Recipe as Training
from onnxcp.training.recipe import asked_recipe

SUFFIX = ".cp.onnx"  # of a model whose name is not given


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of `optimize`."""

    data: DataOptions = field(default_factory=DataOptions)
    budget: BudgetOptions = field(default_factory=BudgetOptions)
    plan: PlanOptions = field(default_factory=PlanOptions)
    target: TargetOptions = field(default_factory=TargetOptions)
    fit: FitOptions = field(default_factory=FitOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    run: RunOptions = field(default_factory=RunOptions)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Asked":
        """The groups of options that stand side by side.

        Raises:
            UsageError: an option that there is not, or a value that it cannot have.
        """
        unknown = set(options) - {o.name for group in GROUPS.values() for o in options_of(group)}
        if unknown:
            raise UsageError(f"{', '.join(sorted(unknown))}: no such option of optimize")
        groups: dict[str, Any] = {n: build(group, options) for n, group in GROUPS.items()}
        return cls(**groups)


GROUPS: Mapping[str, type[Group]] = {
    "data": DataOptions,
    "budget": BudgetOptions,
    "plan": PlanOptions,
    "target": TargetOptions,
    "fit": FitOptions,
    "training": TrainingOptions,
    "run": RunOptions,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run of `optimize` goes by: options, and what those of data, budget, target and
    training stand for. `precision` is that of the model that is written; `kept_in` the folder
    of fits that outlive the run.

    Raises:
        UsageError: options that name nothing or exclude each other.
    """

    model: Path
    output: Path
    asked: Asked
    sources: Sources
    limits: Limits
    target: Target
    precision: str
    kept_in: Path | None
    training: Training | None

    @classmethod
    def of(cls, model: Path, output: Path | None, asked: Asked) -> "Settings":
        """The settings that options stand for.

        Raises:
            OnnxcpError: options that name nothing or exclude each other, or a file among them
                that cannot be read.
        """
        return cls(
            model=model,
            output=output or existing(model).with_suffix(SUFFIX),
            asked=asked,
            sources=Sources.of(asked.data, asked.run.seed),
            limits=Limits.of(asked.budget),
            target=Target.of(asked.target),
            precision=_precision(asked),
            kept_in=asked.fit.cache_folder,
            training=asked_recipe(asked.training, asked.run),
        )

    def __post_init__(self) -> None:
        plan = self.plan
        named(plan.form)
        if plan.strategy not in STRATEGIES:
            raise UsageError(
                f"<<strategy={plan.strategy}>>: unknown; choose {', '.join(STRATEGIES)}"
            )
        self._refuse_precision()
        self._refuse_forced()
        if not self.sources.data:
            self.limits.refuse_without_data()
        self._refuse_training()
        self._refuse_beside_exact()

    def _refuse_beside_exact(self) -> None:
        """Raises UsageError for options of a search or a training, where none takes place, and
        PlanError for a plan of exact passes that is replayed without them."""
        if not self.plan.exact:
            if self.plan.plan is not None and from_json(self.plan.plan)[1].passes:
                raise PlanError(
                    f"{self.plan.plan}: names exact passes alone; replay it with <<exact>>"
                )
            return
        given = {
            "latency": self.latency,
            "target_speedup": self.limits.target_speedup,
            "max_drop": self.limits.max_drop,
            "max_error": self.limits.max_error,
            "finetune": self.training,
            "precision": self.precision if self.precision != FLOAT32 else None,
            "time_budget": self.plan.time_budget,
            "include": self.plan.include or None,
            "exclude": self.plan.exclude or None,
            "work_dir": self.run.work_dir,
            "cluster": self.fit.cluster,
        }
        for option, value in given.items():
            if value is not None:
                raise UsageError(
                    f"<<exact>> and <<{option}>> exclude each other: no layer is replaced or fitted"
                )
        for name in self.plan.no_pass:
            if name not in PASSES:
                raise UsageError(f"<<no_pass={name}>>: unknown; choose {', '.join(PASSES)}")

    def _refuse_precision(self) -> None:
        """Raises UsageError for a precision that brings nothing here, or what it excludes."""
        refuse_without_kernels(self.precision, self.target)
        if self.precision == FLOAT32:
            return
        if self.limits.target_speedup is not None and self.latency is not None:
            raise UsageError(
                "<<target_speedup>> is over the model in float, which a <<latency>> table of "
                f"{self.precision} does not know; leave one of them out"
            )
        if self.plan.pareto is not None:
            raise UsageError(
                f"<<pareto>> and <<precision={self.precision}>> exclude each other: run them apart"
            )

    def _refuse_forced(self) -> None:
        """Raises UsageError for options of a search where there is none."""
        given = {
            "target_speedup": self.limits.target_speedup,
            "latency": self.latency,
            "time_budget": self.plan.time_budget,
            "pareto": self.plan.pareto,
        }
        for option, value in given.items():
            if self.plan.is_forced and value is not None:
                forced = "<<rank>>" if self.plan.rank else "<<plan>>"
                raise UsageError(
                    f"<<{option}>>: ranks are given by {forced}, so nothing is searched"
                )

    def _refuse_training(self) -> None:
        """Raises UsageError for what training excludes or needs."""
        if self.training is None:
            if self.sources.train:
                raise UsageError(f"<<train={self.sources.train[0]}>>: goes with <<finetune>>")
            return
        if not (self.sources.data or self.sources.train or self.sources.calibration):
            raise UsageError("<<finetune>> needs samples: give <<data>>, and <<train>> to train on")
        if self.plan.pareto is not None:
            raise UsageError("<<pareto>> and <<finetune>> exclude each other: run them one by one")
        if self.plan.strategy != "knapsack" and not self.plan.is_forced:
            raise UsageError(
                f"<<strategy={self.plan.strategy}>>: with <<finetune>> plans are those of knapsack"
            )

    @property
    def plan(self) -> PlanOptions:
        return self.asked.plan

    @property
    def fit(self) -> FitOptions:
        return self.asked.fit

    @property
    def run(self) -> RunOptions:
        return self.asked.run

    @property
    def latency(self) -> Path | None:
        """A table of another run or machine."""
        return self.asked.target.latency

    @property
    def jobs(self) -> int:
        """Fits at once, in as many processes."""
        return self.fit.jobs or usable().count

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms to try."""
        return named(self.plan.form)

    @property
    def recipe(self) -> Recipe:
        """How fits are made, but for the samples; a replayed plan brings it all."""
        if self.plan.plan is not None:
            return from_json(self.plan.plan)[1]
        fit = self.fit
        return Recipe(self.run.seed, None, fit.bias_correction, fit.sequential, fit.memory)

    @property
    def also_read(self) -> tuple[Path, ...]:
        """Files that options came from."""
        recipe = self.asked.training.recipe
        return () if recipe is None else (recipe,)


def _precision(asked: Asked) -> str:
    """What is asked for; else what a plan was made for. Raises PlanError for what is no plan."""
    if asked.target.precision is not None:
        return asked.target.precision
    if asked.plan.plan is None:
        return FLOAT32
    planned = from_json(asked.plan.plan)[1].precision
    if planned not in PRECISIONS:
        raise PlanError(
            f"{asked.plan.plan}: {planned!r} is no precision; give a plan that a run wrote"
        )
    return planned
