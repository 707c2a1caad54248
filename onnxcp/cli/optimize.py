"""`onnxcp optimize`: the main job."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxcp.cli import options
from onnxcp.cli.console import errors_as_lines, progress_shown, width

if TYPE_CHECKING:
    from onnxcp.report import Report
    from onnxcp.training.recipe import Recipe


def optimize(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The .onnx file.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="Default: MODEL's name with .cp.onnx"),
    ] = None,
    data: options.Data = [],  # noqa: B006
    calibration: options.Calibration = [],  # noqa: B006
    preprocess: options.Preprocess = "none",
    samples: options.Samples = None,
    metric: options.Metric = None,
    max_drop: options.MaxDrop = None,
    output_name: options.JudgedOutput = [],  # noqa: B006
    accept_baseline: options.AcceptBaseline = False,
    max_error: Annotated[
        float | None,
        typer.Option(
            "--max-error",
            rich_help_panel=options.BUDGET,
            metavar="X",
            help="Largest relative L2 change of the outputs; the budget without data: 0.05.",
        ),
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--form",
            rich_help_panel=options.PLAN,
            metavar="NAME",
            help="auto, cp3, cp4, tkd, tucker2 or svd.",
        ),
    ] = "auto",
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            rich_help_panel=options.PLAN,
            metavar="NAME",
            help="How ranks are chosen: knapsack, bisect, estimate, vbmf, genetic or uniform.",
        ),
    ] = "knapsack",
    target_speedup: Annotated[
        float | None,
        typer.Option(
            "--target-speedup",
            rich_help_panel=options.BUDGET,
            metavar="X",
            help="Lose as little as possible at X times the speed, as 2.0.",
        ),
    ] = None,
    latency: Annotated[
        Path | None,
        typer.Option(
            "--latency",
            rich_help_panel=options.TARGET,
            metavar="FILE",
            help="Choose ranks for the machine of this table.",
        ),
    ] = None,
    time_budget: Annotated[
        str | None,
        typer.Option(
            "--time-budget",
            rich_help_panel=options.PLAN,
            metavar="T",
            help="End the search after T (90, 10m, 2h) with the best plan till then.",
        ),
    ] = None,
    work_dir: options.WorkDir = None,
    resume: options.Resume = False,
    pareto: Annotated[
        Path | None,
        typer.Option(
            "--pareto",
            rich_help_panel=options.PLAN,
            metavar="DIR",
            help="Also write models along time against accuracy.",
        ),
    ] = None,
    rank: Annotated[
        list[str],
        typer.Option(
            "--rank",
            rich_help_panel=options.PLAN,
            metavar="'GLOB=R'",
            help="Force ranks by node name: 32, or 1.5c for 1.5 × output channels, or as many "
            "as the kernel has. Repeatable.",
        ),
    ] = [],  # noqa: B006
    bias_correction: Annotated[
        bool,
        typer.Option(
            "--bias-correction/--no-bias-correction",
            rich_help_panel=options.FITS,
            help="Let biases make up for the mean of what chains change.",
        ),
    ] = True,
    sequential: Annotated[
        bool,
        typer.Option(
            "--sequential",
            rich_help_panel=options.FITS,
            help="Refit the plan's layers in order, each to the inputs that the chains before it "
            "give: more accurate, and two runs over the calibration data for every layer.",
        ),
    ] = False,
    calibration_memory: Annotated[
        float,
        typer.Option(
            "--calibration-memory",
            rich_help_panel=options.FITS,
            metavar="GB",
            min=0,
            help="Most that covariances may take.",
        ),
    ] = 2.0,
    finetune: Annotated[
        bool,
        typer.Option(
            "--finetune",
            rich_help_panel=options.TRAINING,
            help="Train what is rewritten to give what MODEL gives, and find the fastest plan "
            "within the budget after that. Needs PyTorch.",
        ),
    ] = False,
    train: options.Train = [],  # noqa: B006
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            rich_help_panel=options.TRAINING,
            metavar="N",
            help="Passes of --finetune over the data: 10.",
        ),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            "--augment",
            rich_help_panel=options.TRAINING,
            metavar="LIST",
            help="For --finetune: of flip, crop and mix.",
        ),
    ] = None,
    recipe: options.RecipeFile = None,
    include: Annotated[
        list[str],
        typer.Option(
            "--include",
            rich_help_panel=options.PLAN,
            metavar="GLOB",
            help="Only these nodes. Repeatable.",
        ),
    ] = [],  # noqa: B006
    exclude: Annotated[
        list[str],
        typer.Option(
            "--exclude",
            rich_help_panel=options.PLAN,
            metavar="GLOB",
            help="Not these nodes. Repeatable.",
        ),
    ] = [],  # noqa: B006
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan", rich_help_panel=options.PLAN, metavar="FILE", help="Replay a plan exactly."
        ),
    ] = None,
    precision: options.Precision = None,
    raise_opset: options.RaiseOpset = False,
    provider: options.Provider = "cpu",
    provider_option: options.ProviderOption = [],  # noqa: B006
    cuda_graph: options.CudaGraph = None,
    threads: options.Threads = 0,
    batch: options.Batch = None,
    input_shape: options.InputShape = [],  # noqa: B006
    iterations: options.Iterations = 200,
    seed: options.Seed = 0,
    jobs: options.Jobs = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            rich_help_panel=options.FITS,
            metavar="ADDRESS",
            help="Fit and evaluate on the workers of a Dask scheduler, tcp://host:8786; as many "
            "fits at once as they have threads, so without --jobs. Time is measured here.",
        ),
    ] = None,
    fit_device: Annotated[
        str,
        typer.Option(
            "--fit-device",
            rich_help_panel=options.FITS,
            metavar="NAME",
            help="Where fits run: cpu or cuda (torch).",
        ),
    ] = "cpu",
    cache: options.Cache = None,
    no_cache: options.NoCache = False,
    report: Annotated[
        list[Path],
        typer.Option("--report", metavar="FILE", help="Write a report: .json, .md. Repeatable."),
    ] = [],  # noqa: B006
    allow_unchanged: Annotated[
        bool,
        typer.Option(
            "--allow-unchanged",
            rich_help_panel=options.BUDGET,
            help="If nothing is faster, copy MODEL and exit 0.",
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Find convolutions that CP chains make faster, within a budget, and prove it.

    Writes OUT and OUT's plan, or nothing and exits 1 with the reason.
    """
    with errors_as_lines(verbose) as ending:
        from onnxcp.graph.io import existing
        from onnxcp.measure.evaluator import Limits
        from onnxcp.optimization.settings import Settings
        from onnxcp.report import WRITERS

        options.refuse_formats(report)
        settings = Settings(
            model=model,
            output=output or existing(model).with_suffix(".cp.onnx"),
            target=options.target(provider, provider_option, threads, cuda_graph),
            precision=options.precision(precision, plan),
            raise_opset=raise_opset,
            sources=options.sources(
                data,
                preprocess,
                batch,
                input_shape,
                calibration=calibration,
                train=train,
                samples=samples,
                seed=seed,
            ),
            limits=Limits(max_drop, max_error, options.metric(metric), tuple(output_name)),
            form=form,
            strategy=strategy,
            target_speedup=target_speedup,
            latency=latency,
            time_budget=options.seconds(time_budget),
            work_dir=work_dir,
            resume=resume,
            pareto=pareto,
            ranks=tuple(rank),
            include=tuple(include),
            exclude=tuple(exclude),
            plan=plan,
            seed=seed,
            turns=iterations,
            allow_unchanged=allow_unchanged,
            fit_device=fit_device,
            cache=options.cache(cache, no_cache),
            correct_bias=bias_correction,
            sequential=sequential,
            calibration_memory=int(calibration_memory * 2**30),
            jobs=options.jobs(jobs, cluster),
            cluster=cluster,
            accept_baseline=accept_baseline,
            training=_training(finetune, epochs, augment, recipe, seed),
            overwrite=overwrite,
            reports=tuple(report),
            also_read=() if recipe is None else (recipe,),
        )
        from onnxcp.cli.interruption import told
        from onnxcp.optimization.pipeline import optimize as run

        ending.interrupted = told(settings.output, report, work_dir)

        with progress_shown(quiet, verbose) as progress:
            found = run(
                settings,
                shlex.join(["onnxcp", *sys.argv[1:]]),
                progress,
                lambda made: {path: WRITERS[path.suffix](made) for path in report},
            )
        _show(found, quiet)
        raise typer.Exit(found.exit_code)


def _training(
    wanted: bool, epochs: int | None, augment: str | None, recipe: Path | None, seed: int
) -> "Recipe | None":
    """How --finetune trains; None without it.

    Raises:
        MissingPackage: PyTorch is not installed.
        UsageError: a value that a recipe can not have, or one given without --finetune.
    """
    from onnxcp.errors import UsageError
    from onnxcp.training.distill import refuse_without_torch

    if not wanted:
        for option, value in (("epochs", epochs), ("augment", augment), ("recipe", recipe)):
            if value is not None:
                raise UsageError(f"--{option} {value}: goes with --finetune")
        return None
    refuse_without_torch()
    from onnxcp.training.recipe import from_file, names

    given = {"epochs": epochs, "augment": names(augment), "seed": seed}
    return from_file(recipe, {k: v for k, v in given.items() if v is not None})


def _show(found: "Report", quiet: bool) -> None:
    from onnxcp.report.optimize import to_text

    typer.echo(found.verdict if quiet else to_text(found, width()).rstrip())
