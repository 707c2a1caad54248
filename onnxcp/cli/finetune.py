"""`onnxcp finetune`: train a rewritten model's weights, without labels."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from onnxcp.cli.command import Only, command
from onnxcp.cli.console import ConsoleOptions, Ending, progress_shown
from onnxcp.cli.flags import as_flags
from onnxcp.cli.options import Json, warn_of_threads
from onnxcp.cli.reports import print_result, refuse_formats, texts_of
from onnxcp.options.budget import BudgetOptions
from onnxcp.options.data import DataOptions
from onnxcp.options.option import Option, options_of
from onnxcp.options.run import RunOptions
from onnxcp.options.target import TargetOptions
from onnxcp.options.training import TrainingOptions

DATA = ("data", "train", "preprocess", "samples")
BUDGET = ("metric", "max_drop", "output_name", "accept_baseline")
TRAINING = tuple(o.name for o in options_of(TrainingOptions) if o.name != "finetune")
RUN = ("work_dir", "resume", "report", "overwrite", "seed")


@command
def finetune(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="The original.")],
    candidate: Annotated[
        Path, typer.Argument(metavar="CANDIDATE", help="What optimize made of it.")
    ],
    output: Annotated[Path, Option("The model to write.", metavar="OUT", short="o")],
    *,
    data: Annotated[DataOptions, Only(*DATA)],
    budget: Annotated[BudgetOptions, Only(*BUDGET)],
    training: Annotated[TrainingOptions, Only(*TRAINING)],
    target: Annotated[TargetOptions, Only("provider", "provider_option", "threads")],
    run: Annotated[RunOptions, Only(*RUN)],
    json: Json = False,
    console: ConsoleOptions,
    ending: Ending,
) -> None:
    """Train a rewritten model to give what the original gives; labels are not needed.

    Needs PyTorch. Only weights change: the graph, its names and its speed stay.
    """
    from onnxcp.cli.interruption import told
    from onnxcp.data.roles import Sources
    from onnxcp.measure.evaluator import Limits
    from onnxcp.report import WRITERS, Page
    from onnxcp.report import finetune as findings
    from onnxcp.runtime.providers import Target
    from onnxcp.training import finetune as tuning
    from onnxcp.training.distill import refuse_without_torch
    from onnxcp.training.recipe import recipe_of

    refuse_without_torch()
    recipe = recipe_of(training, run)
    refuse_formats("report", run.report, WRITERS)
    asked = tuning.FinetuneRequest(
        reference,
        candidate,
        output,
        Sources.of(data, run.seed),
        Limits.of(budget),
        warn_of_threads(Target.of(target)),
        run,
        (training.recipe, training.loss),
    )
    ending.interrupted = told(output, run.report, run.work_dir)

    def page(made: tuning.Finetuned) -> Page:
        return findings.page(made, shlex.join(["onnxcp", *sys.argv[1:]]))

    with progress_shown(console) as progress:
        made = tuning.finetune(asked, recipe, progress, lambda made: texts_of(run, page(made)))
    print_result(page(made), findings.to_text(as_flags(made)), json=json)
    if not made.ok:
        raise typer.Exit(1)
