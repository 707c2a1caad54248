"""`onnxcp verify`: are two models' outputs equal, and if not where and by how much."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from onnxcp.cli.command import Only, command
from onnxcp.cli.console import ConsoleOptions, progress_shown, width
from onnxcp.cli.flags import as_flags
from onnxcp.cli.options import Json, warn_of_threads
from onnxcp.cli.reports import REPORT, print_result, reserve_reports, write_reports
from onnxcp.options.budget import BudgetOptions
from onnxcp.options.data import DataOptions
from onnxcp.options.option import Option
from onnxcp.options.run import RunOptions
from onnxcp.options.target import PRECISIONS, TargetOptions, known_precision
from onnxcp.options.tolerance import ToleranceOptions

DATA = ("data", "preprocess", "samples", "batch", "input_shape")
BUDGET = ("metric", "max_drop", "output_name", "accept_baseline")
Precision = Annotated[
    str | None,
    Option(
        "What CANDIDATE has to be, else exit code 2: {choices}. Nothing is converted: the file is "
        "checked as it is.",
        metavar="NAME",
        choices=PRECISIONS,
        panel=TargetOptions.PANEL,
    ),
]


@command
def verify(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="The original.")],
    candidate: Annotated[Path, typer.Argument(metavar="CANDIDATE", help="What to check.")],
    *,
    data: Annotated[DataOptions, Only(*DATA)],
    tolerance: ToleranceOptions,
    budget: Annotated[BudgetOptions, Only(*BUDGET)],
    target: Annotated[TargetOptions, Only("provider", "provider_option", "threads")],
    reference_provider: Annotated[
        str | None,
        Option("Where the reference runs; default: on <<provider>> too.", metavar="NAME"),
    ] = None,
    precision: Precision = None,
    run: Annotated[RunOptions, Only("seed", *REPORT)],
    json: Json = False,
    console: Annotated[ConsoleOptions, Only("verbose")],
) -> None:
    """Check the surgery, and compare outputs on data, or on synthetic inputs without.

    Surgery: a model that onnxcp wrote must be the original but for its chains, and these must
    compute what they stand for. Approximation: reported, and judged by --rtol, --atol and
    --max-drop alone; NaN, infinity and unequal shapes always fail. Exit code 1 is a failure.

    Of an int8 CANDIDATE the surgery is for its float model to show. Its error comes in two
    steps, what its weights bring and what the rounding of activations adds; limits hold for both
    together.
    """
    from onnxcp.artifacts.reservation import Reads
    from onnxcp.data.roles import Sources
    from onnxcp.measure.evaluator import Limits
    from onnxcp.report import verify as findings
    from onnxcp.runtime.providers import Target
    from onnxcp.verification import comparison

    where = warn_of_threads(Target.of(target))
    elsewhere = None
    if reference_provider not in (None, target.provider):
        other = replace(target, provider=reference_provider, provider_option=())
        elsewhere = Target.of(other).exact
    judges = (data.preprocess, budget.metric if isinstance(budget.metric, str) else None)
    reserve_reports(run, Reads((reference, candidate), data.data, judges))
    with progress_shown(console) as progress:
        compared = comparison.run(
            reference,
            candidate,
            Sources.of(data, run.seed),
            where.exact,
            elsewhere,
            limits=Limits.of(budget),
            bounds=tolerance,
            precision=None if precision is None else known_precision(precision),
            progress=progress,
        )
    page = findings.page(compared)
    write_reports(run, page)
    print_result(page, findings.as_text(as_flags(compared), width()), json=json)
    if not compared.ok:
        raise typer.Exit(1)
