"""`onnxcp.optimize`: the main job, on files or on what is in memory."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

import onnx

from onnxcp.api.keywords import grouped, single, verb
from onnxcp.api.models import ModelLike
from onnxcp.api.saving import Saved, read_back
from onnxcp.api.settings import data_of, fits_of
from onnxcp.api.shown import Shown
from onnxcp.api.staging import Staging, staging
from onnxcp.api.types import Optimize, PathLike
from onnxcp.errors import UsageError, as_keywords
from onnxcp.graph.io import existing
from onnxcp.optimization import pipeline
from onnxcp.optimization.settings import SUFFIX, Asked, Settings
from onnxcp.options.budget import BudgetOptions
from onnxcp.options.plan import PlanOptions
from onnxcp.options.run import RunOptions
from onnxcp.options.target import TargetOptions
from onnxcp.options.training import TrainingOptions
from onnxcp.plan import Choice, Plan
from onnxcp.progress import Progress, silent
from onnxcp.report import Page
from onnxcp.report.optimize import page, to_text
from onnxcp.results import AccuracyRecord, Report, SiteRecord
from onnxcp.training.distill import refuse_without_torch


@dataclass(frozen=True, slots=True, eq=False)
class OptimizeResult(Shown):
    """What a run made of a model, or why it left it alone.

    `model` is None where it is left alone; `reason` says in one sentence why it was written or
    not. `report` holds all that was measured, as RUN.json does.
    """

    report: Report
    saved: Saved | None = field(repr=False)

    @property
    def model(self) -> onnx.ModelProto | None:
        """The faster model; None where the model is left alone."""
        return None if self.saved is None else self.saved.model

    @property
    def reason(self) -> str:
        """What decided, in one sentence."""
        return self.report.verdict

    @property
    def plan(self) -> Plan:
        """The form and rank of every layer that is replaced, by its name; empty without any."""
        rows = self.report.plan.items()
        return Plan({n: Choice(r["form"], r["rank"], r.get("floats", "")) for n, r in rows})

    @property
    def document(self) -> str | None:
        """The plan as a file holds it, which `optimize(plan=…)` replays."""
        return None if self.saved is None else self.saved.plan

    @property
    def speedup(self) -> float | None:
        """How many times faster the model is than the original, measured in turns; None where it
        was not timed. Where the model is left alone: what the best candidate came to."""
        return None if self.report.latency is None else self.report.latency.speedup

    @property
    def speedup_ci(self) -> tuple[float, float] | None:
        """Its 95 % interval."""
        return None if self.report.latency is None else self.report.latency.speedup_ci

    @property
    def accuracy(self) -> AccuracyRecord | None:
        """What it loses, with the 95 % interval and the budget; None where nothing was judged."""
        return self.report.accuracy

    @property
    def replaced(self) -> tuple[SiteRecord, ...]:
        """The layers that are chains now, with their times, errors and sensitivities."""
        return self.report.replaced

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the figures must know."""
        return self.report.warnings

    def save(self, path: PathLike, *, overwrite: bool = False) -> Path:
        """Write the model and beside it its plan, both or, after an error, neither.

        Raises:
            OutputError: a file is there and `overwrite` is off, or cannot be written.
            UsageError: the model was left alone, so there is none.
        """
        if self.saved is None:
            raise UsageError(f"there is no model to save: {self.reason}")
        return self.saved.write(Path(path), overwrite=overwrite)

    def to_text(self, width: int = 80) -> str:
        """The report as the command prints it."""
        return as_keywords(to_text(self.report, width))

    def _page(self) -> Page:
        return page(self.report)


@verb()
def optimize(
    model: ModelLike, *, progress: Progress = silent, **options: Unpack[Optimize]
) -> OptimizeResult:
    """Make a model measurably faster within its budget, or leave it alone and say why.

        result = onnxcp.optimize("model.onnx", data="val.npz", max_drop=0.01)
        if result.model is not None:
            result.save("model.cp.onnx")

    Args:
        model: a path, an onnx.ModelProto or an onnx_graphsurgeon.Graph.
        data, calibration, train: what the command takes, as a path; or {name: array}, an
            iterable of (inputs, labels) as a torch DataLoader, or a CalibrationDataReader.
        output: where to write the model and its plan; by default nothing is written, and
            `result.save` does it.
        plan, latency: a path, or the result of an earlier `optimize`, or of `profile`.
        cache: a folder for fits that outlive the run; without it none are kept, but with
            `no_cache=False`, which keeps them where the command does.

    Returns:
        The result, also where nothing is faster or the budget is not met: then its `model` is
        None.

    Raises:
        TypeError: an unknown keyword, with the nearest that there is.
        OnnxcpError: an unusable model, samples, provider or keyword, which the message names; see
            `onnxcp.errors`.
    """
    with staging() as staged:
        given: dict[str, Any] = {**options}
        settings = _settings(model, given, staged)
        report = pipeline.optimize(settings, progress=progress)
        saved = read_back(settings.output) if report.exit_code == 0 else None
        return OptimizeResult(staged.as_given(report), saved)


def _settings(model: ModelLike, given: dict[str, Any], staged: Staging) -> Settings:
    path = existing(staged.model(model))
    given |= {name: staged.document(given.get(name), name) for name in ("plan", "latency")}
    training = grouped(TrainingOptions, given)
    if training.finetune:
        refuse_without_torch()
    asked = Asked(
        data_of(given, staged, path),
        grouped(BudgetOptions, given),
        grouped(PlanOptions, given),
        grouped(TargetOptions, given),
        fits_of(given),
        training,
        grouped(RunOptions, given),
    )
    asked_output = single("output", Path, given.get("output"))
    output = staged.output(asked_output, path.with_suffix(SUFFIX).name)
    return Settings.of(path, output, asked)
