"""The search for ranks: layers are timed, a strategy chooses, and what it finds is proven."""

import math
from dataclasses import replace

from onnxcp.fitting.fits import FULL
from onnxcp.latency.table import Table
from onnxcp.latency.tabulate import contexts
from onnxcp.measure.time_budget import now
from onnxcp.measure.timing import speedup
from onnxcp.optimization import kept_layers
from onnxcp.optimization.after_training import Recovery
from onnxcp.optimization.int8_coverage import some_in_int8
from onnxcp.optimization.outcome import Outcome
from onnxcp.optimization.pareto import write_front
from onnxcp.optimization.plan_outcome import fitted_outcome, referee_of, timed_outcome
from onnxcp.optimization.reasons import Kind, because
from onnxcp.optimization.rounds import Search, effort_for, search
from onnxcp.optimization.run import Run
from onnxcp.optimization.scores import Court
from onnxcp.optimization.timed_menu import timed_menu
from onnxcp.optimization.training import School
from onnxcp.plan import Budget, Plan

LAST = 1.3  # times what the original's samples took: what those of the last plan do
AIMS, AIMED = 3, 0.99  # tries at a speed-up; how far below the time that should do the next aims


def searched_outcome(run: Run, teacher: School | None, alone: Outcome | None = None) -> Outcome:
    """Ranks by a strategy, from measured times and judged accuracy; in int8, where the model is
    measured `alone`, the layers to beat are in int8, too."""
    begun = now()
    referee = referee_of(run)
    sample = (now() - begun) / run.inputs.evaluation_count  # seconds, in the original
    end = run.time.judging_end
    last = LAST * sample * len(run.inputs.samples or run.inputs.synthetic)
    court = Court(run, referee, end - last, sample=sample)
    looked_at = timed_menu(run, contexts(run.model, run.chosen, run.inputs), court)
    table, times, whole = looked_at.table, looked_at.times, looked_at.menu
    budget = _objective(run, referee.budget, table, alone)
    kept = {**kept_layers.before_timing(run), **kept_layers.after_timing(run, times)}
    kept |= kept_layers.not_timed(run, times)
    outcome = Outcome(Plan(), times, budget, table, precision=run.settings.precision, kept=kept)
    if whole is None:
        return replace(outcome, why=kept_layers.none_faster(run, times))
    menu = some_in_int8(run, whole)
    kept |= kept_layers.out_of_menu(run, times, whole) | kept_layers.for_int8(whole, times, menu)
    outcome = replace(outcome, kept=kept)

    def final(plan: Plan) -> Outcome:
        return fitted_outcome(run, replace(outcome, plan=plan), referee)

    effort = effort_for(menu)
    is_rough = effort != FULL or run.recipe.sequential
    base = 0.0 if alone is None else max(0.0, court.of_model(run.model.path).loss)
    asked = Search(menu, run.settings.plan.strategy, court, effort, is_rough, final, base, end=end)
    if base < outcome.budget.limit:  # else what int8 itself loses leaves nothing for chains
        outcome = _proven(run, asked, outcome)
    folder = run.settings.plan.pareto
    if teacher is not None:
        outcome = _recovered(run, teacher, asked, outcome, end)
    outcome = _explained(run, asked, outcome)
    if folder is None:
        return outcome
    front = write_front(run, menu, outcome, lambda plan: timed_outcome(run, final(plan)), folder)
    return replace(outcome, front=front)


def _explained(run: Run, asked: Search, found: Outcome) -> Outcome:
    """With the reasons of what a search leaves."""
    if asked.base >= found.budget.limit and not found.plan.choices:
        precision = f"{run.settings.precision} alone"
        left = kept_layers.without_search(asked.menu, found.latency, precision)
        why = because(Kind.PRECISION_LOSES, precision=precision)
        return replace(found, kept={**found.kept, **left}, why=why)
    judged, budget = tuple(asked.court.trail.values()), found.budget
    unseen = any(why.kind in (Kind.NOT_TIMED, Kind.NOT_FITTED) for why in found.kept.values())
    seen = kept_layers.Searched(asked.menu, judged, asked.is_late or unseen)
    left = kept_layers.after_search(seen, found.latency, budget, found.plan)
    found = replace(found, kept={**found.kept, **left})
    if found.plan.choices:
        return found
    why = kept_layers.no_plan(seen, budget, run.settings.plan.seconds, run.remedy)
    return replace(found, why=why)


def _proven(run: Run, asked: Search, nothing: Outcome) -> Outcome:
    """What a search finds, timed; where a speed-up was asked for and the interval of the
    measured one reaches below it, it has to look for a faster plan: what is timed once more,
    after a training or by the user, should hold, too."""
    held: Outcome | None = None
    for _ in range(AIMS):
        found = search(asked, nothing)
        found = timed_outcome(run, found)
        wanted, seconds = run.settings.limits.target_speedup, nothing.budget.seconds
        if wanted is None or seconds is None or found.timings is None:
            return found
        reached = speedup(*found.timings)
        if reached.ratio >= wanted and found.is_within:
            held = found
        if reached.low >= wanted or not asked.has_time:
            break
        budget = replace(nothing.budget, seconds=AIMED * seconds * reached.low / wanted)
        nothing = replace(nothing, budget=budget)
    return held or found


def _objective(run: Run, budget: Budget, table: Table, alone: Outcome | None) -> Budget:
    """The budget of the accuracy, or of the time where that is what was asked for: over the
    original in float, which is slower than the table's where that is of int8."""
    wanted = run.settings.limits.target_speedup
    if wanted is None:
        return budget
    limit = budget.limit if run.settings.limits.is_given else math.inf
    lead = 1.0 if alone is None or alone.timings is None else speedup(*alone.timings).ratio
    return Budget(limit, f"{wanted:g}× faster", lead * table.before / wanted)


def _recovered(
    run: Run, teacher: School, asked: Search, without: Outcome, deadline: float
) -> Outcome:
    """What training makes of a search's outcome: for a budget of time of the same plan, else
    of the fastest one that it brings within the budget. The same plan is the same graph, so what
    was timed before the training counts, too: else noise could refuse a speed-up just proven."""
    if without.budget.seconds is not None:
        if without.staged is None:
            return without
        found = timed_outcome(run, teacher.finished(without, asked.court.referee))
        if without.timings is None or found.timings is None:
            return found
        (dense, chained), (old, new) = without.timings, found.timings
        return replace(found, timings=(dense + old, chained + new))

    def timed(outcome: Outcome) -> Outcome:
        return timed_outcome(run, outcome)

    limit = without.budget.limit
    return Recovery(teacher, asked, timed, limit, deadline).best(without)
