"""`onnxcp inspect`: every convolution, and what could be done with it."""

from typing import TYPE_CHECKING, Annotated

from onnxcp.cli.command import Only, command
from onnxcp.cli.console import ConsoleOptions, progress_shown, width
from onnxcp.cli.flags import as_flags
from onnxcp.cli.options import Json, Model, warn_of_threads
from onnxcp.cli.reports import REPORT, print_result, reserve_reports, write_reports
from onnxcp.options.data import DataOptions
from onnxcp.options.fit import FitOptions
from onnxcp.options.option import Option
from onnxcp.options.plan import PlanOptions
from onnxcp.options.run import RunOptions
from onnxcp.options.target import TargetOptions

if TYPE_CHECKING:
    from pathlib import Path

    from onnxcp.data.roles import Sources
    from onnxcp.fitting.rank_curves import RankCurve
    from onnxcp.runtime.providers import Target

Data = Annotated[DataOptions, Only("batch", "input_shape", "calibration", "preprocess")]
Ranks = Annotated[bool, Option("Fit, and list error and sensitivity against rank instead.")]


@command
def inspect(
    model: Model,
    *,
    profile: Annotated[bool, Option("Add the measured time of every site's Conv.")] = False,
    ranks: Ranks = False,
    data: Data,
    plan: Annotated[PlanOptions, Only("form")],
    fit: Annotated[FitOptions, Only("jobs", "cache", "no_cache")],
    target: Annotated[TargetOptions, Only("provider", "provider_option", "threads")],
    run: Annotated[RunOptions, Only(*REPORT)],
    json: Json = False,
    console: ConsoleOptions,
) -> None:
    """List every Conv and matrix product: shape, cost, and whether a chain can replace it."""
    from onnxcp.artifacts.reservation import Reads
    from onnxcp.data.roles import Sources
    from onnxcp.latency.listing import survey_layers
    from onnxcp.report import inspect as listing
    from onnxcp.runtime.providers import Target

    where, sources = warn_of_threads(Target.of(target)), Sources.of(data)
    reserve_reports(run, Reads((model,), data.calibration, (data.preprocess,)))
    if ranks:
        curves = _rank_curves(model, sources, where, (plan, fit), console)
        page, text = listing.curves_page(str(model), curves), listing.curves_as_text(curves)
    else:
        layers = survey_layers(model, sources, where, profile=profile)
        page, text = listing.page(layers), listing.as_text(as_flags(layers), width())
    write_reports(run, page)
    print_result(page, text, json=json)


def _rank_curves(
    model: "Path",
    sources: "Sources",
    target: "Target",
    how: tuple[PlanOptions, FitOptions],
    console: ConsoleOptions,
) -> "list[RankCurve]":
    from onnxcp.fitting import rank_curves
    from onnxcp.forms import named
    from onnxcp.runtime.cores import usable

    plan, fit = how
    with progress_shown(console) as progress:
        return rank_curves.rank_curves(
            model,
            sources,
            target,
            named(plan.form),
            jobs=fit.jobs or usable().count,
            cache=fit.cache_folder,
            progress=progress,
        )
