"""Rank curves: error and sensitivity against rank, for every site and form.

They come from drafts, each started from the one at half its rank; their errors are mostly within
10 % of converged fits. With calibration data, errors are in the norm of real inputs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onnxcp.chain import cost
from onnxcp.cluster.processes import in_threads, processes
from onnxcp.data.roles import Sources, prepare
from onnxcp.fitting.calibrate import calibrate
from onnxcp.fitting.choices import largest_rank
from onnxcp.fitting.fits import Fits
from onnxcp.fitting.rank_grid import knots
from onnxcp.forms import DRAFT, FORMS
from onnxcp.forms.grouped import drawn
from onnxcp.graph import io
from onnxcp.graph.sites import Site
from onnxcp.plan import Choice
from onnxcp.progress import Progress, silent
from onnxcp.runtime.providers import Target
from onnxcp.runtime.survey import survey
from onnxcp.storage import temporary


@dataclass(frozen=True, slots=True)
class RankPoint:
    """One rank: relative error in the norm of the fit, sensitivity, and multiply-adds.

    Multiply-adds are of one sample, None if the image size is unknown.
    """

    rank: int
    error: float
    sensitivity: float
    macs: int | None


@dataclass(frozen=True, slots=True)
class RankCurve:
    """A site in one form; errors never increase with rank."""

    site: str
    form: str
    macs: int | None  # of the site as it is
    points: tuple[RankPoint, ...]


def rank_curves(
    path: Path,
    sources: Sources,
    target: Target,
    forms: Sequence[str],
    *,
    jobs: int = 1,
    cache: Path | None = None,
    progress: Progress = silent,
) -> list[RankCurve]:
    """The curve of every site in every form that applies to it.

    Raises:
        OnnxcpError: the model is unreadable, samples do not fit, or a process was killed.
    """
    model = io.load(path)
    inputs = prepare(model.inputs, sources)
    sites, _ = survey(model, inputs.shapes, target, inputs.timed_feeds)
    with temporary.folder() as folder, processes(jobs) as workers:
        fits = Fits({s.name: s for s in sites}, sources.seed, workers, cache)
        fits.learn(*calibrate(model, sites, inputs, target, folder, progress=progress))
        asked = [(s, f) for s in sites for f in forms if FORMS[f].refuses(s.part) is None]
        made = []
        for done, curve in enumerate(in_threads(lambda pair: _curve(fits, *pair), asked, jobs)):
            progress("fit rank curves", done, len(asked))
            made.append(curve)
    return made


def _curve(fits: Fits, site: Site, form: str) -> RankCurve:
    points = list[RankPoint]()
    for rank in _ranks(site, form):
        fitted = fits.get(site.name, Choice(form, rank), DRAFT)
        point = RankPoint(rank, fitted.error, fitted.sensitivity_after, _macs(site, form, rank))
        usable = fitted.outcome.is_usable
        if points and not (usable and point.error <= points[-1].error):
            point = replace(
                point, error=points[-1].error, sensitivity=points[-1].sensitivity
            )  # as good as the smaller rank's with empty terms
        points.append(point)
    return RankCurve(site.name, form, site.layer.macs, tuple(points))


def _ranks(site: Site, form: str) -> Iterator[int]:
    """The knots up to the first whose chain has as many multiply-adds as the site."""
    _, rank = knots(1, site.group)
    while rank <= largest_rank(site, form):
        yield rank
        macs = _macs(site, form, rank)
        if macs is not None and site.layer.macs and macs >= site.layer.macs:
            return
        rank *= 2


def _macs(site: Site, form: str, rank: int) -> int | None:
    if site.image is None:
        return None
    rng = np.random.default_rng(0)
    return cost(
        drawn(FORMS[form], site.shape, site.group, rank, site.geometry, rng), site.image
    ).macs
