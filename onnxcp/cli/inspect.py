"""`onnxcp inspect`: every convolution, and what could be done with it."""

from typing import TYPE_CHECKING, Annotated

import typer

from onnxcp.cli.command import Only, command
from onnxcp.cli.console import ConsoleOptions, progress_shown, width
from onnxcp.cli.flags import as_flags
from onnxcp.cli.options import Json, Model, warn_of_threads
from onnxcp.options.data import DataOptions
from onnxcp.options.fit import FitOptions
from onnxcp.options.option import Option
from onnxcp.options.plan import PlanOptions
from onnxcp.options.target import TargetOptions

if TYPE_CHECKING:
    from pathlib import Path

    from onnxcp.data.roles import Sources
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
    json: Json = False,
    console: ConsoleOptions,
) -> None:
    """List every Conv and matrix product: shape, cost, and whether a chain can replace it."""
    from onnxcp.data.roles import Sources
    from onnxcp.runtime.providers import Target

    where, sources = warn_of_threads(Target.of(target)), Sources.of(data)
    if ranks:
        typer.echo(_rank_curves(model, sources, where, (plan, fit), console, json=json))
        return
    from onnxcp.latency.listing import survey_layers
    from onnxcp.report import inspect as listing

    layers = as_flags(survey_layers(model, sources, where, profile=profile))
    text = listing.as_json(layers) if json else listing.as_text(layers, width())
    typer.echo(as_flags(text))


def _rank_curves(
    model: "Path",
    sources: "Sources",
    target: "Target",
    how: tuple[PlanOptions, FitOptions],
    console: ConsoleOptions,
    *,
    json: bool,
) -> str:
    from onnxcp.fitting import rank_curves
    from onnxcp.forms import named
    from onnxcp.runtime.cores import usable

    plan, fit = how
    with progress_shown(console) as progress:
        curves = rank_curves.rank_curves(
            model,
            sources,
            target,
            named(plan.form),
            jobs=fit.jobs or usable().count,
            cache=fit.cache_folder,
            progress=progress,
        )
    return rank_curves.as_json(curves) if json else rank_curves.as_text(curves)
