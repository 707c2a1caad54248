"""`onnxcp finetune`: train a rewritten model's weights, without labels."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from onnxcp.cli import options
from onnxcp.cli.console import errors_as_lines, progress_shown

OPTIONS = {"batch": "batch_size", "train": "trained"}  # parameters not named as the fields


def finetune(
    context: typer.Context,
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="The original.")],
    candidate: Annotated[
        Path, typer.Argument(metavar="CANDIDATE", help="What optimize made of it.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="The model to write.")
    ],
    data: options.Data = [],  # noqa: B006
    train: options.Train = [],  # noqa: B006
    preprocess: options.Preprocess = "none",
    samples: options.Samples = None,
    metric: options.Metric = None,
    max_drop: options.MaxDrop = None,
    output_name: options.JudgedOutput = [],  # noqa: B006
    accept_baseline: options.AcceptBaseline = False,
    epochs: Annotated[
        int,
        typer.Option(
            "--epochs", rich_help_panel=options.TRAINING, metavar="N", help="Passes over the data."
        ),
    ] = 10,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size", rich_help_panel=options.TRAINING, metavar="N", help="Samples of a step."
        ),
    ] = 64,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            rich_help_panel=options.TRAINING,
            metavar="X",
            help="At its highest; without it, by how much the candidate loses.",
        ),
    ] = None,
    optimizer: Annotated[
        str,
        typer.Option(
            "--optimizer", rich_help_panel=options.TRAINING, metavar="NAME", help="adamw or sgd."
        ),
    ] = "adamw",
    weight_decay: Annotated[
        float,
        typer.Option(
            "--weight-decay",
            rich_help_panel=options.TRAINING,
            metavar="X",
            min=0,
            help="Of the optimizer.",
        ),
    ] = 0.0,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature",
            rich_help_panel=options.TRAINING,
            metavar="T",
            help="Of what the original teaches.",
        ),
    ] = 12.0,
    labels: Annotated[
        float,
        typer.Option(
            "--label-weight",
            rich_help_panel=options.TRAINING,
            metavar="X",
            help="Of cross-entropy with the labels.",
        ),
    ] = 0.0,
    features: Annotated[
        float,
        typer.Option(
            "--feature-weight",
            rich_help_panel=options.TRAINING,
            metavar="X",
            help="Of what replaced layers gave.",
        ),
    ] = 0.0,
    stability: Annotated[
        float,
        typer.Option(
            "--stability",
            rich_help_panel=options.TRAINING,
            metavar="X",
            min=0,
            help="Weight of the chains' sensitivity.",
        ),
    ] = 0.0,
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            rich_help_panel=options.TRAINING,
            metavar="MODULE:FUNCTION",
            help="A loss of your own, (outputs, labels) -> tensor, added to the others.",
        ),
    ] = None,
    trained: Annotated[
        str,
        typer.Option(
            "--weights",
            rich_help_panel=options.TRAINING,
            metavar="WHICH",
            help="chains, all, or a glob of nodes.",
        ),
    ] = "chains",
    batch_norm: Annotated[
        str,
        typer.Option(
            "--batch-norm",
            rich_help_panel=options.TRAINING,
            metavar="HOW",
            help="frozen, recalibrated or trained.",
        ),
    ] = "frozen",
    augment: Annotated[
        str,
        typer.Option(
            "--augment",
            rich_help_panel=options.TRAINING,
            metavar="LIST",
            help="Of flip, crop and mix; images only.",
        ),
    ] = "",
    patience: Annotated[
        int,
        typer.Option(
            "--patience",
            rich_help_panel=options.TRAINING,
            metavar="N",
            help="Epochs without gain that end it.",
        ),
    ] = 0,
    recipe: options.RecipeFile = None,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            rich_help_panel=options.TRAINING,
            metavar="NAME",
            help="To train on: cpu or cuda.",
        ),
    ] = "cpu",
    mixed_precision: Annotated[
        bool,
        typer.Option(
            "--mixed-precision",
            rich_help_panel=options.TRAINING,
            help="Train in bfloat16 where that is safe: on a GPU.",
        ),
    ] = False,
    provider: options.Provider = "cpu",
    provider_option: options.ProviderOption = [],  # noqa: B006
    threads: options.Threads = 0,
    work_dir: options.WorkDir = None,
    resume: options.Resume = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.json", help="Write the run.")
    ] = None,
    overwrite: options.Overwrite = False,
    seed: options.Seed = 0,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Train a rewritten model to give what the original gives; labels are not needed.

    Needs PyTorch. Only weights change: the graph, its names and its speed stay.
    """
    with errors_as_lines(verbose) as ending:
        from onnxcp.cli import interruption
        from onnxcp.measure.evaluator import Limits
        from onnxcp.report import finetune as tuned
        from onnxcp.training import distill
        from onnxcp.training import finetune as finetuning

        distill.refuse_without_torch()
        from onnxcp.training.recipe import from_file, names

        given = {
            "epochs": epochs,
            "batch": batch_size,
            "learning_rate": learning_rate,
            "optimizer": optimizer,
            "weight_decay": weight_decay,
            "temperature": temperature,
            "labels": labels,
            "features": features,
            "stability": stability,
            "loss": loss,
            "train": trained,
            "batch_norm": batch_norm,
            "augment": names(augment),
            "patience": patience,
            "seed": seed,
            "device": device,
            "mixed_precision": mixed_precision,
        }
        said = {k: v for k, v in given.items() if recipe is None or _is_said(context, k)}
        made_as = from_file(recipe, said)
        asked = finetuning.Round(
            reference,
            candidate,
            output,
            options.sources(data, preprocess, None, [], samples=samples, seed=seed),
            tuple(train),
            Limits(max_drop, None, options.metric(metric), tuple(output_name)),
            options.target(provider, provider_option, threads),
            work_dir,
            resume,
            accept_baseline,
            overwrite,
            report,
            (recipe, loss),
        )
        reports = () if report is None else (report,)
        ending.interrupted = interruption.told(output, reports, work_dir)
        command = shlex.join(["onnxcp", *sys.argv[1:]])
        with progress_shown(quiet, verbose) as progress:
            made = finetuning.finetune(
                asked, made_as, progress, lambda made: tuned.to_json(made, command)
            )
        typer.echo(tuned.to_json(made, command) if json else tuned.to_text(made))
        if not made.ok:
            raise typer.Exit(1)


def _is_said(context: typer.Context, name: str) -> bool:
    """Whether an option is on the command line: then it counts instead of the recipe's."""
    source = context.get_parameter_source(OPTIONS.get(name, name))
    return source is not None and source.name == "COMMANDLINE"
