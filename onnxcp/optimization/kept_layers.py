"""Why every layer of a run stays as it is, decided stage by stage.

Knows what a stage of `optimize` saw, and makes the reason of every layer that ends there. Later
stages speak of the layers that the earlier ones left over.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxcp.forms import FORMS
from onnxcp.graph.sites import Site
from onnxcp.latency.candidates import Latency, Measured, steps
from onnxcp.optimization.menu import least_rank
from onnxcp.optimization.reasons import Kind, Reason, because, chain, speed
from onnxcp.optimization.run import Run
from onnxcp.optimization.scores import Judged
from onnxcp.plan import Budget, Candidate, Choice, Menu, Plan
from onnxcp.search.plan_family import fastest

Reasons = Mapping[str, Reason]  # by layer


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """What a search looked at: the plans judged, in order, and whether time ended it."""

    menu: Menu
    judged: Sequence[Judged]
    is_late: bool


def before_timing(run: Run) -> Reasons:
    """Of layers that the options leave out."""
    chosen = {site.name for site in run.chosen}
    return {s.name: because(Kind.EXCLUDED) for s in run.sites if s.name not in chosen}


def forced(run: Run, named: Plan) -> Reasons:
    """Of layers that no given rank names."""
    kind = Kind.NO_RANK if run.settings.plan.plan is None else Kind.NOT_IN_PLAN
    unnamed = {s.name: because(kind) for s in run.sites if s.name not in named.choices}
    return {**unnamed, **before_timing(run)} if kind is Kind.NO_RANK else unnamed


LATE = "the time budget was over"
TIMING_OVER = "the time budget left no more for timing"


def not_timed(run: Run, times: Mapping[str, Latency]) -> Reasons:
    """Of layers that there was no time to measure."""
    missing = [site.name for site in run.chosen if site.name not in times]
    return {name: because(Kind.NOT_TIMED, why=TIMING_OVER) for name in missing}


def after_timing(run: Run, times: Mapping[str, Latency]) -> Reasons:
    """Of layers that no chain is faster than."""
    by_name = {site.name: site for site in run.sites}
    return {
        name: _not_faster(run, by_name[name], row) for name, row in times.items() if not steps(row)
    }


def _not_faster(run: Run, site: Site, row: Latency) -> Reason:
    if row.busy is not None:
        return because(Kind.BUSY, why=row.busy)
    if not row.tried:
        refusals = [FORMS[form].refuses(site.part) for form in run.settings.forms]
        if not all(refusals):
            return because(Kind.NO_SAVING)
        return because(Kind.REFUSED, detail="; ".join(dict.fromkeys(map(str, refusals))))
    faster = [m for m in row.tried if m.is_faster]
    if faster:
        return because(Kind.NOT_SURELY_FASTER, **_told(_quickest(faster)))
    return because(Kind.NOT_FASTER, **_told(_quickest(row.tried)))


def out_of_menu(run: Run, times: Mapping[str, Latency], menu: Menu) -> dict[str, Reason]:
    """Of layers whose faster chains are all too poor to be looked at, or were not fitted in
    time."""
    by_name = {site.name: site for site in run.sites}
    return {
        name: _not_fitted(by_name[name], row)
        for name, row in times.items()
        if steps(row) and name not in menu.sites
    }


def for_int8(whole: Menu, times: Mapping[str, Latency], menu: Menu) -> dict[str, Reason]:
    """Of layers that stay so that something is left for int8, and are in the menu no more."""
    left = [name for name in whole.sites if name not in menu.sites]
    return {name: because(Kind.LEFT_FOR_INT8, **_of(whole, times, name)) for name in left}


def _not_fitted(site: Site, row: Latency) -> Reason:
    least, told = least_rank(site), _told(_quickest(steps(row)))
    if any(m.choice.rank >= least for m in steps(row)):
        return because(Kind.NOT_FITTED, why=LATE, **told)
    channels = min(site.part[:2]) * site.group
    return because(Kind.TOO_FEW_RANKS, least=math.ceil(least), channels=channels, **told)


def without_search(menu: Menu, times: Mapping[str, Latency], precision: str) -> Reasons:
    """Of layers for which the precision alone leaves nothing of the budget."""
    return {
        name: because(Kind.NOTHING_LEFT, precision=precision, **_of(menu, times, name))
        for name in menu.sites
    }


def after_search(
    seen: Searched, times: Mapping[str, Latency], budget: Budget, plan: Plan
) -> Reasons:
    """Of layers that a search's plan leaves, or of all where it found none."""
    return {
        name: _left(seen, times, budget, plan, name)
        for name in seen.menu.sites
        if name not in plan.choices
    }


def _left(
    seen: Searched, times: Mapping[str, Latency], budget: Budget, plan: Plan, name: str
) -> Reason:
    menu, told = seen.menu, _of(seen.menu, times, name)
    losses = [menu.loss(candidate) for candidate in menu.sites[name]]
    if not any(map(math.isfinite, losses)):
        return because(Kind.NO_USABLE_FIT, **told)
    if plan.choices:
        change = math.sqrt(menu.loss(_fastest(menu, name)))
        shown = f"{change:.1%}" if math.isfinite(change) else "more than can be told"
        return because(Kind.LEFT_BY_PLAN, change=shown, **told)
    if is_out_of_reach(menu, budget):
        return because(Kind.OUT_OF_REACH, budget=budget.words, **told)
    with_it = sum(name in judged.plan.choices for judged in seen.judged)
    if not with_it:
        why = LATE if seen.is_late else "the plans judged leave it"
        return because(Kind.NOT_JUDGED, why=why, **told)
    facts = {"with_it": with_it, "judged": len(seen.judged), "budget": budget.words}
    return because(Kind.ALL_OVER_BUDGET, **facts, **told)


def is_out_of_reach(menu: Menu, budget: Budget) -> bool:
    """Whether a time was asked for that all fastest chains together do not reach."""
    return budget.seconds is not None and menu.seconds(fastest(menu)) > budget.seconds


def no_plan(seen: Searched, budget: Budget, seconds: float | None, remedy: str) -> Reason:
    """Why a search came to no plan."""
    menu, judged = seen.menu, [j for j in seen.judged if j.plan.choices]
    if is_out_of_reach(menu, budget):
        reach = menu.total / menu.seconds(fastest(menu))
        return because(Kind.UNREACHABLE, budget=budget.words, reach=reach)
    if not judged:
        return late("before a plan was judged", seconds, remedy) if seen.is_late else no_candidate()
    least = min((j.score.loss for j in judged if math.isfinite(j.score.loss)), default=math.inf)
    shown = f"{least:.4g}" if math.isfinite(least) else "not finite"
    plans = f"{len(judged)} plan{'s' * (len(judged) != 1)} judged"
    facts = {"plans": plans, "budget": budget.words, "least": shown}
    if seen.is_late and seconds is not None:
        return because(Kind.LATE_JUDGED, budget_seconds=seconds, remedy=remedy, **facts)
    return because(Kind.NONE_WITHIN, **facts)


def no_candidate() -> Reason:
    """The reason for a layer without any candidate."""
    return because(Kind.NO_CANDIDATE)


def late(stage: str, seconds: float | None, remedy: str) -> Reason:
    """That the time budget ended at a stage."""
    return because(Kind.LATE, budget=seconds or 0.0, stage=stage, remedy=remedy)


def none_faster(run: Run, times: Mapping[str, Latency]) -> Reason:
    """Why timing left nothing to search."""
    busy = [row.busy for row in times.values() if row.busy is not None]
    if busy:
        counts = f"{len(busy)} of {len(times)} layers could not be measured"
        return because(Kind.TOO_BUSY, why=f"{counts}: {busy[0]}")
    missing, seconds = len(not_timed(run, times)), run.settings.plan.seconds
    if missing:
        asked = len(run.chosen)
        return because(Kind.TIMING_LATE, budget=seconds or 0.0, missing=missing, layers=asked)
    return because(Kind.NONE_FASTER if any(r.tried for r in times.values()) else Kind.NONE_SAVES)


def beaten(plan: Plan, winner: str) -> Reasons:
    """Of layers whose chains were in question, where another model is the better one."""
    return {
        name: because(Kind.RIVAL, winner=winner, chain=chain(choice))
        for name, choice in plan.choices.items()
    }


REFUSALS = {
    Kind.OVER_BUDGET: "it is over the budget",
    Kind.SLOWER: "it is not faster as a whole",
    Kind.SHORT_OF_TARGET: "it does not reach the speed-up",
    Kind.TOO_BUSY: "its speed could not be measured",
    Kind.UNRELIABLE_TABLE: "the latency table proves no speed-up",
}


def not_accepted(plan: Plan, why: Reason) -> Reasons:
    """Of layers that a plan replaces which was not accepted."""
    said = REFUSALS.get(why.kind, why.words)
    return {
        name: because(Kind.TRIED, chain=chain(choice), why=said)
        for name, choice in plan.choices.items()
    }


def replaced(row: Latency, choice: Choice, *, is_here: bool) -> Reason:
    """Of a layer that a plan replaces, as it was measured on this machine or on another."""
    measured = row.measured(choice)
    if measured is None:
        return because(Kind.UNMEASURED, why=row.busy)
    return because(Kind.MEASURED if is_here else Kind.MEASURED_THERE, speed=speed(measured.against))


def _quickest(measured: Sequence[Measured]) -> Measured:
    return min(measured, key=lambda m: m.seconds)


def _fastest(menu: Menu, name: str) -> Candidate:
    return min(menu.sites[name], key=lambda c: c.seconds)


def _of(menu: Menu, times: Mapping[str, Latency], name: str) -> dict[str, str]:
    """The fastest chain of a layer that could be chosen, and how fast it was measured."""
    choice = _fastest(menu, name).choice
    return _told(next(m for m in times[name].tried if m.choice == choice))


def _told(measured: Measured) -> dict[str, str]:
    return {"chain": chain(measured.choice), "speed": speed(measured.against)}
