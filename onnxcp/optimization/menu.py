"""The menu of a model: times from a latency table, errors from fits, losses from probes.

What the network loses through one site is predicted from the error of its kernel in the norm of
the site's real inputs, which is the relative error of its output. Two probes, the model with this
site alone replaced, show what errors do: the squared relative change of the model's output grows
with their square, and faster or slower where they are large. Changes of several sites add up,
being small and nearly independent.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxcp.chain import cost
from onnxcp.cluster.processes import in_threads
from onnxcp.fitting.rank_grid import nearest_knot
from onnxcp.forms import DRAFT, FORMS
from onnxcp.forms.grouped import drawn
from onnxcp.graph.sites import Site
from onnxcp.latency.candidates import Latency, Measured, steps
from onnxcp.latency.table import Table
from onnxcp.measure.time_budget import now
from onnxcp.optimization.fit_pace import FitPace
from onnxcp.optimization.run import Run
from onnxcp.optimization.scores import Court
from onnxcp.plan import Candidate, Choice, Menu, Original, Plan, Spectrum
from onnxcp.progress import NOTE

SPECIAL = {"cp4": "cp3"}  # every chain of the one is also one of the other, of equal rank
WORTH = 0.95  # of the general form's time: a special one that takes more is not looked at
FEWEST = 8  # ranks below the channels over this are not looked at: hopeless, and slow to fit
ENOUGH = 0.05  # of large networks, an error below which larger ranks are not looked at
SMALL = 2_000_000  # numbers of all kernels: with more, fits are what takes time
FINE, COARSE = 7, 3  # four candidate ranks to an octave, or two
EXACT = 1e-3  # errors below tell nothing of what they do
APART = 3  # how far apart the ranks of two probes are
PROBES, FEW_PROBED = 2, 8  # of a site; samples of each at least, in a hurry
FULL_OVER_DRAFT = 6.0  # seconds of a fit in full over those of a draft: a heuristic
FULL_SHARE = 0.2  # of the time that is left: what fits in full of one plan may take
POWERS = (1.0, 3.0)  # of a site's error, in its effect: 2 where all is linear


@dataclass(frozen=True, slots=True)
class Law:
    """Squared relative change of the output = change · (error / at) ** power: 2 for errors
    smaller than `at`, where all is linear, and another one above."""

    change: float = 0.0
    at: float = 1.0
    power: float = 2.0

    @classmethod
    def through(cls, seen: Sequence[tuple[float, float]]) -> "Law":
        """Through one probe or two, as (error, squared change), the smaller error first."""
        if not seen:
            return cls()
        (error, change), (other, more) = seen[0], seen[-1]
        power = 2.0
        if other > error and 0 < change < math.inf and 0 < more < math.inf:
            slope = math.log(more / change) / math.log(other / error)
            power = min(max(slope, POWERS[0]), POWERS[1])
        return cls(change, error, power)

    def of(self, error: float) -> float:
        """The change at an error of the site."""
        power = 2.0 if error < self.at else self.power
        return self.change * math.pow(error / self.at, power)


def make_menu(run: Run, times: Mapping[str, Latency], table: Table, court: Court) -> Menu:
    """Every site's faster candidates, with what they take and what they are expected to lose. Where
    time is limited, sites that would be fitted too late are left out, but never all."""
    scale, by_name = table.scale_of(times.values()), {s.name: s for s in run.sites}
    is_large = sum(by_name[n].kernel.size for n, row in times.items() if steps(row)) > SMALL
    odd = COARSE if is_large else FINE
    block = run.settings.target.block
    sites = {n: _candidates(by_name[n], row, scale, block, odd) for n, row in times.items()}
    looked_at = [by_name[n] for n, found in sites.items() if found]
    errors = _errors(run, looked_at, sites, ENOUGH if is_large else EXACT)
    run.fits.drafts = run.fits.drafts or _are_drafts_all_there_is_time_for(run)
    court.probed = _probed(run, court, len({candidate.site for candidate in errors}))
    sites = {n: [c for c in found if c in errors] for n, found in sites.items()}
    sites = {name: found for name, found in sites.items() if found}
    originals = {n: _original(by_name[n], scale * times[n].dense) for n in sites}
    laws = _laws(run, [by_name[name] for name in sites], sites, court)
    losses = {c: laws[c.site].of(errors[c]) for found in sites.values() for c in found}
    return Menu(
        sites=sites,
        originals=originals,
        total=table.total,
        loss=losses.__getitem__,
        spectra=lambda name: spectra(by_name[name]),
        seed=run.settings.run.seed,
        journal=run.journal,
    )


def _errors(
    run: Run,
    sites: Sequence[Site],
    found: Mapping[str, Sequence[Candidate]],
    enough: float,
) -> dict[Candidate, float]:
    """The error of every candidate that is worth looking at, and that there is time for."""
    forms = {s.name: dict.fromkeys(c.choice.form for c in found[s.name]) for s in sites}
    pairs = [(s, form) for s in _in_order(run, sites, found) for form in forms[s.name]]
    if run.time.is_limited:  # every site in one form, before any in two
        pairs.sort(key=lambda pair: list(forms[pair[0].name]).index(pair[1]))
    errors, done = dict[Candidate, float](), itertools.count()
    pace = FitPace(run.time.end_of("fits"), run.parallel)

    def climb(pair: tuple[Site, str]) -> dict[Candidate, float]:
        site, form = pair
        mine = [c for c in found[site.name] if c.choice.form == form]
        made = _climbed(run, site, mine, enough, pace)
        run.progress("fit drafts", next(done), len(pairs))
        if pace.is_first():
            run.progress(pace.estimate(run, sites, found), 0, NOTE)
        return made

    for made in in_threads(climb, pairs, run.parallel):
        errors |= made
    return errors


def _in_order(
    run: Run, sites: Sequence[Site], found: Mapping[str, Sequence[Candidate]]
) -> list[Site]:
    """The largest first, which keeps processes busy; where time is limited, those first that save
    most for a number to be fitted."""
    if not run.time.is_limited:
        return sorted(sites, key=lambda s: -s.kernel.size)
    fastest = {s.name: min(c.seconds for c in found[s.name]) for s in sites}
    slowest = {s.name: max(c.seconds for c in found[s.name]) for s in sites}
    saves = {s.name: s.layer.macs or slowest[s.name] / fastest[s.name] for s in sites}
    return sorted(sites, key=lambda s: -saves[s.name] / s.kernel.size)


def _probed(run: Run, court: Court, sites: int) -> int:
    """Samples of a probe: as many as there is time for in all probes."""
    if not run.time.is_limited or not court.sample or not sites:
        return court.probed
    left = run.time.end_of("probes") - now()
    return max(FEW_PROBED, min(court.probed, int(left / (PROBES * sites * court.sample))))


def _are_drafts_all_there_is_time_for(run: Run) -> bool:
    """Whether fits in full, of one plan, would take too much of what is left."""
    full = FULL_OVER_DRAFT * run.fits.slowest_drafts() / run.parallel
    return run.time.is_limited and full > FULL_SHARE * run.time.left


def _climbed(
    run: Run, site: Site, candidates: Sequence[Candidate], enough: float, pace: FitPace
) -> dict[Candidate, float]:
    """Errors of one form's candidates, from small ranks up to where more has no use, or to where
    time ends."""
    errors, least = dict[Candidate, float](), least_rank(site)
    for candidate in sorted(candidates, key=lambda c: c.choice.rank):
        if candidate.choice.rank < least:
            continue
        if not pace.affords(site.kernel.size):
            break
        begun = now()
        errors[candidate] = run.fits.error(site.name, candidate.choice, DRAFT)
        pace.note(site.kernel.size, now() - begun)
        if errors[candidate] <= enough:
            break
    return errors


def least_rank(site: Site) -> float:
    """Ranks below are not looked at: what they lose is hopeless."""
    return min(site.part[:2]) * site.group / FEWEST


def _candidates(site: Site, row: Latency, scale: float, block: int, odd: int) -> list[Candidate]:
    """A site's faster candidates whose rank, in steps, has an odd part of at most `odd`; all of
    them where none has."""
    step, faster = math.lcm(block, site.group), steps(row)
    found = [m for m in faster if _odd_part(m.choice.rank // step) <= odd] or faster
    slow_first = sorted(row.tried, key=lambda m: -m.seconds)  # whatever is left in float
    general = {(m.choice.form, m.choice.rank): m.seconds for m in slow_first}
    kept = [m for m in found if not _is_pointless(m, general)] or found
    return [
        Candidate(site.name, m.choice, scale * m.seconds, _parameters(site, m.choice)) for m in kept
    ]


def _odd_part(number: int) -> int:
    return number // (number & -number) if number else 1


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


def _laws(
    run: Run, sites: Sequence[Site], found: Mapping[str, Sequence[Candidate]], court: Court
) -> dict[str, Law]:
    laws, end, took = dict[str, Law](), run.time.end_of("probes"), 0.0
    for done, site in enumerate(sites):
        run.progress("probe layers", done, len(sites))
        if now() + took > end:
            break
        begun = now()
        laws[site.name] = _law(run, site, [c.choice for c in found[site.name]], court)
        took = now() - begun
    usual = _usual(list(laws.values()))
    return {site.name: laws.get(site.name, usual) for site in sites}


def _usual(laws: Sequence[Law]) -> Law:
    """What an error does in the middle of the sites that were probed, for those that were not;
    where none was, the output is taken to change as much as the site's own."""
    seen = [law.change / law.at**2 for law in laws if 0 < law.change < math.inf]
    return Law(float(np.median(seen)) if seen else 1.0)


def _law(run: Run, site: Site, choices: Sequence[Choice], court: Court) -> Law:
    """From probes of drafts whose rank is near the site's channels, and of poorer ones; in a hurry
    from the first alone."""
    form = choices[0].form
    ranks = [c.rank for c in choices if c.form == form]
    seen = list[tuple[float, float]]()  # error, squared change
    for wanted in (site.shape[0], site.shape[0] / APART)[: 1 if run.fits.drafts else PROBES]:
        rank = nearest_knot(wanted, site.group)
        if not min(ranks) <= rank <= max(ranks):
            rank = min(ranks, key=lambda r: abs(r - wanted))
        probed = Choice(form, rank)
        error = run.fits.error(site.name, probed, DRAFT)
        if EXACT < error < math.inf and error not in [e for e, _ in seen]:
            seen.append((error, court.change(Plan({site.name: probed}), DRAFT)))
    return Law.through(sorted(seen))


def spectra(site: Site) -> list[Spectrum]:
    """Singular values of a site's kernel, unfolded along its outputs and along its inputs; of
    a layer with groups, of all its groups side by side."""
    kernel = np.asarray(site.kernel, np.float64)
    unfoldings = [np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1) for axis in (0, 1)]
    return [
        Spectrum(tuple(np.linalg.svd(m, compute_uv=False).tolist()), *m.shape) for m in unfoldings
    ]
