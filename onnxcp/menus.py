"""The menu of a model: times from a latency table, errors from fits, losses from probes.

What the network loses through one site is predicted as gain · error²: the error is that of the
kernel in the norm of the site's real inputs, which is the relative error of its output, and the
gain is seen in one probe, the model with this site alone replaced, as the squared relative
change of the model's output. Small changes of several sites add up, being nearly independent.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from onnxcp.conv import cost
from onnxcp.court import Court
from onnxcp.forms import DRAFT, FORMS
from onnxcp.forms.grouped import drawn
from onnxcp.job import Job
from onnxcp.latency import Latency, Measured, steps
from onnxcp.plan import Candidate, Choice, Menu, Original, Plan, Spectrum
from onnxcp.sites import Site
from onnxcp.table import Table

SPECIAL = {"cp4": "cp3"}  # every chain of the one is also one of the other, of equal rank
WORTH = 0.95  # of the general form's time: a special one that takes more is not looked at
EXACT = 1e-3  # errors below tell nothing of the gain


def make_menu(job: Job, times: Mapping[str, Latency], table: Table, court: Court) -> Menu:
    """Every site's faster candidates, with what they take and what they are expected to lose."""
    scale, by_name = table.scale, {s.name: s for s in job.sites}
    sites = {n: _candidates(by_name[n], row, scale) for n, row in times.items()}
    sites = {name: found for name, found in sites.items() if found}
    originals = {n: _original(by_name[n], scale * times[n].dense) for n in sites}
    gains = _gains(job, sites, court)

    def error(candidate: Candidate) -> float:
        court.refuse_late()
        return job.fits.error(candidate.site, candidate.choice, DRAFT)

    def loss(candidate: Candidate) -> float:
        return gains[candidate.site] * error(candidate) ** 2

    return Menu(
        sites=sites,
        originals=originals,
        total=table.total,
        error=error,
        loss=loss,
        spectra=lambda name: spectra(by_name[name]),
        jobs=job.parallel,
        seed=job.settings.seed,
        journal=job.journal,
    )


def _candidates(site: Site, row: Latency, scale: float) -> list[Candidate]:
    found = steps(row)
    general = {(m.choice.form, m.choice.rank): m.seconds for m in row.tried}
    kept = [m for m in found if not _is_pointless(m, general)]
    return [
        Candidate(site.name, m.choice, scale * m.seconds, _parameters(site, m.choice)) for m in kept
    ]


def _is_pointless(measured: Measured, general: Mapping[tuple[str, int], float]) -> bool:
    """Whether a more general form of the same rank takes no longer to speak of."""
    form = SPECIAL.get(measured.choice.form)
    seconds = general.get((form or "", measured.choice.rank))
    return seconds is not None and measured.seconds > WORTH * seconds


def _parameters(site: Site, choice: Choice) -> int:
    rng = np.random.default_rng(0)
    form = FORMS[choice.form]
    made = drawn(form, site.shape, site.group, choice.rank, site.geometry, rng)
    return cost(made, site.image or ()).parameters


def _original(site: Site, seconds: float) -> Original:
    return Original(seconds, site.kernel.size, site.shape[0])


def _gains(job: Job, sites: Mapping[str, Sequence[Candidate]], court: Court) -> dict[str, float]:
    gains = {}
    for done, (name, candidates) in enumerate(sites.items()):
        job.progress("probe layers", done, len(sites))
        gains[name] = _gain(job, candidates, court)
    return gains


def _gain(job: Job, candidates: Sequence[Candidate], court: Court) -> float:
    """Squared change of the output per squared error of the site: of a candidate whose rank is
    near the site's channels, where errors are neither exact nor hopeless."""
    site = candidates[0].site
    channels = next(s.shape[0] for s in job.sites if s.name == site)
    nearest = sorted(candidates, key=lambda c: abs(c.choice.rank - channels))
    for candidate in nearest:
        error = job.fits.get(site, candidate.choice, DRAFT).error
        if EXACT < error < float("inf"):
            return court.change(Plan({site: candidate.choice}), DRAFT) / error**2
    return 0.0


def spectra(site: Site) -> list[Spectrum]:
    """Singular values of a site's kernel, unfolded along its outputs and along its inputs; of
    a layer with groups, of all its groups side by side."""
    kernel = np.asarray(site.kernel, np.float64)
    unfoldings = [np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1) for axis in (0, 1)]
    return [
        Spectrum(tuple(np.linalg.svd(m, compute_uv=False).tolist()), *m.shape) for m in unfoldings
    ]
