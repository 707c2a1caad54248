"""`onnxcp optimize`: the main job."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxcp.cli.command import Only, command
from onnxcp.cli.console import ConsoleOptions, Ending, progress_shown, width
from onnxcp.cli.flags import as_flags
from onnxcp.cli.options import Model, warn_of_threads
from onnxcp.cli.reports import refuse_formats, texts_of
from onnxcp.options.budget import BudgetOptions
from onnxcp.options.data import DataOptions
from onnxcp.options.fit import FitOptions
from onnxcp.options.option import Option
from onnxcp.options.plan import PlanOptions
from onnxcp.options.run import RunOptions
from onnxcp.options.target import TargetOptions
from onnxcp.options.training import TrainingOptions

if TYPE_CHECKING:
    from onnxcp.report import Report

Training = Annotated[TrainingOptions, Only("finetune", "epochs", "augment", "recipe")]


@command
def optimize(
    model: Model,
    output: Annotated[
        Path | None, Option("Default: MODEL's name with .cp.onnx", metavar="OUT", short="o")
    ] = None,
    *,
    data: DataOptions,
    budget: BudgetOptions,
    plan: PlanOptions,
    target: TargetOptions,
    fit: FitOptions,
    training: Training,
    run: RunOptions,
    console: ConsoleOptions,
    ending: Ending,
) -> None:
    """Find convolutions that CP chains make faster, within a budget, and prove it.

    Writes OUT and OUT's plan, or nothing and exits 1 with the reason.
    """
    from onnxcp.cli.interruption import told
    from onnxcp.optimization.pipeline import optimize as optimize_model
    from onnxcp.optimization.settings import Asked, Settings
    from onnxcp.report import WRITERS
    from onnxcp.report.optimize import page
    from onnxcp.training.distill import refuse_without_torch

    refuse_formats("report", run.report, WRITERS)
    if training.finetune:
        refuse_without_torch()
    asked = Asked(data, budget, plan, target, fit, training, run)
    settings = Settings.of(model, output, asked)
    warn_of_threads(settings.target)
    ending.interrupted = told(settings.output, run.report, run.work_dir)
    with progress_shown(console) as progress:
        report = optimize_model(
            settings,
            shlex.join(["onnxcp", *sys.argv[1:]]),
            progress,
            lambda made: texts_of(run, page(made)),
        )
    _show(as_flags(report), quiet=console.quiet)
    raise typer.Exit(report.exit_code)


def _show(report: "Report", *, quiet: bool) -> None:
    from onnxcp.report.optimize import to_text

    typer.echo(report.verdict if quiet else as_flags(to_text(report, width()).rstrip()))
