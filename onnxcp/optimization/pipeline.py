"""optimize(): the only place where the parts meet.

load → find sites → time candidates → search, fitting on demand → rewrite → surgery check →
accuracy → whole-model benchmark → write. Nothing reaches the output path before the last
step; everything before it happens in a folder that goes with the run.
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from onnxcp.artifacts.publishing import publish
from onnxcp.errors import TooBusy
from onnxcp.fitting.fits import FULL
from onnxcp.graph import io
from onnxcp.latency.candidates import Latency, measure
from onnxcp.latency.table import Table
from onnxcp.latency.tabulate import contexts
from onnxcp.measure.compare import time_models
from onnxcp.measure.evaluator import Referee, unjudged
from onnxcp.measure.stopwatch import stopwatch
from onnxcp.measure.time_budget import TimeBudget, now
from onnxcp.measure.timing import Timing, speedup
from onnxcp.optimization import kept_layers
from onnxcp.optimization.after_training import Recovery
from onnxcp.optimization.calibration import learn_inputs
from onnxcp.optimization.decision import decide, foreign
from onnxcp.optimization.exact_run import optimize_exactly
from onnxcp.optimization.forced_ranks import forced_choices
from onnxcp.optimization.int8_coverage import some_in_int8
from onnxcp.optimization.open_run import open_run
from onnxcp.optimization.outcome import Outcome, name_of
from onnxcp.optimization.output_files import reserve_outputs
from onnxcp.optimization.pareto import write_front
from onnxcp.optimization.precisions import fastest
from onnxcp.optimization.reasons import Kind, because
from onnxcp.optimization.rounds import Search, effort_for, search
from onnxcp.optimization.run import Run
from onnxcp.optimization.scores import Court
from onnxcp.optimization.self_check import checked
from onnxcp.optimization.settings import Settings
from onnxcp.optimization.summary import summarise
from onnxcp.optimization.timed_menu import timed_menu
from onnxcp.optimization.training import School, school
from onnxcp.plan import Budget, Choice, Plan, plan_file, to_json
from onnxcp.progress import Progress, silent
from onnxcp.quantization.precision import FLOAT32
from onnxcp.results import AccuracyRecord, Report

SECONDS, LEAST_BENCHMARK = 20.0, 1.0  # at most and at least, for the whole-model benchmark
LAST = 1.3  # times what the original's samples took: what those of the last plan do
AIMS, AIMED = 3, 0.99  # tries at a speed-up; how far below the time that should do the next aims


def optimize(
    settings: Settings,
    command: str = "",
    progress: Progress = silent,
    documents: Callable[[Report], Mapping[Path, str]] | None = None,
) -> Report:
    """Make a model faster within its budget, or say why not.

    The model and its plan are written if the report's exit code is 0, and `documents`, which
    makes the texts of `settings.run.report`, in any case: all of them or, after an error, nothing.

    Raises:
        OnnxcpError: unusable input, option, plan, provider or output; or a rewritten model
            that does not compute what its chains stand for (`SurgeryError`).
    """
    if settings.plan.exact:
        return optimize_exactly(settings, command, progress, documents)
    reserve_outputs(settings)
    time_budget = TimeBudget(settings.plan.seconds or math.inf)
    with open_run(settings, progress, time_budget) as run:
        outcome = find_outcome(run)
        run = run.in_precision(outcome.precision)
        decision = decide(run, outcome, asked=settings.precision)
        report = summarise(run, outcome, decision, command)
        texts = {} if documents is None else documents(report)
        if decision.accepted:
            assert outcome.staged is not None
            _write(run, texts, run.builder.deployed(outcome.staged), outcome.plan)
        elif decision.exit_code == 0:
            _write(run, texts, _copy(run.model.path, run.folder / settings.output.name), Plan())
        else:
            publish(texts, overwrite=settings.run.overwrite)
        return report


def _write(run: Run, texts: Mapping[Path, str], staged: Path, plan: Plan) -> None:
    output, recipe = run.settings.output, run.recipe
    if not plan.choices:  # the model as it came, or that in int8
        recipe = replace(recipe, shortcuts=())
    document = to_json(plan, run.model.sha256, recipe, run.sample_roles)
    texts = {**texts, plan_file(output): document}
    publish(texts, [(staged, output)], overwrite=run.settings.run.overwrite)


def _copy(source: Path, staged: Path) -> Path:
    """The input written through, external data too."""
    model = io.load(source)
    if model.external:
        io.save(model.proto, staged, model.external)
    else:
        shutil.copyfile(source, staged)
    return staged


def find_outcome(run: Run) -> Outcome:
    """Find a plan and measure what it does to the model.

    Raises:
        SurgeryError: the rewritten model does not compute what its chains stand for.
    """
    settings = run.settings
    is_float = settings.precision == FLOAT32
    if is_float and not (run.sites if settings.plan.is_forced else run.chosen):
        return _nothing_to_do(run)
    teacher = school(run)  # what it refuses is said now
    if settings.plan.is_forced:
        return _forced(run, teacher)
    if is_float:
        return _searched(run, teacher)
    return _in_contest(run, teacher)


def _nothing_to_do(run: Run) -> Outcome:
    """Without a layer to replace nothing is run."""
    kind = Kind.ALL_EXCLUDED if run.sites else Kind.NO_LAYERS
    if run.sites and run.settings.plan.plan is not None:
        kind = Kind.EMPTY_PLAN
    kept = (
        kept_layers.forced(run, Plan())
        if run.settings.plan.is_forced
        else kept_layers.before_timing(run)
    )
    budget = Budget(0.0, "not judged: nothing to replace")
    return Outcome(Plan(), {}, budget, kept=kept, why=because(kind))


def _referee(run: Run) -> Referee:
    original = run.judged(run.model.path)
    return Referee(original, run.inputs, run.settings.limits, run.progress, run.outputs)


def _forced(run: Run, teacher: School | None) -> Outcome:
    """Ranks as given: each site in the faster form where a rank was given and the form was not."""
    asked = forced_choices(run)
    if not asked:
        return _nothing_to_do(run)
    referee = _referee(run)
    sites = [s for s in run.sites if s.name in asked]
    times = measure(
        asked,
        contexts(run.model, sites, run.inputs),
        run.settings.target,
        stopwatch(run.settings.target),
        precision=run.settings.precision,
        seed=run.settings.run.seed,
        progress=run.progress,
    )
    learn_inputs(run, list(asked))
    plan = Plan({name: _quickest(row, asked[name]) for name, row in times.items()})
    kept, precision = kept_layers.forced(run, plan), run.settings.precision
    nothing = Outcome(Plan(), times, referee.budget, precision=precision, kept=kept)
    fitted = _fitted(run, replace(nothing, plan=plan), referee)
    return _timed(run, fitted if teacher is None else teacher.finished(fitted, referee))


def _quickest(row: Latency, asked: Sequence[Choice]) -> Choice:
    """The fastest of what is asked for; the first where the machine was too busy to measure."""
    if row.busy is not None:
        return asked[0]
    return min(row.tried, key=lambda m: m.seconds).choice


def _in_contest(run: Run, teacher: School | None) -> Outcome:
    """The fastest of int8 with chains, int8 alone, and chains in float as they are fitted: not
    by a table of another machine, which knows no float, nor of fits made in sequence, which are
    of one plan."""
    alone = _alone(run)
    if not run.chosen:
        return alone
    begun = now()
    chained = _searched(run, teacher, alone)
    took = now() - begun
    kept = {**chained.kept, **kept_layers.beaten(chained.plan, name_of(alone))}
    found = [chained, replace(alone, latency=chained.latency, table=chained.table, kept=kept)]
    if not foreign(run) and not run.recipe.sequential and took <= run.time.left:
        found.append(_searched(run.in_precision(FLOAT32), None))
    known = [outcome for outcome in found if outcome.staged is not None]
    best = fastest(run, known, run.settings.limits.target_speedup)
    if best.recovered is None and chained.recovered is not None:
        best = replace(best, recovered=chained.recovered.of_another)
    return best


def _alone(run: Run) -> Outcome:
    """The model in int8, without any chain."""
    referee, path = _referee(run), run.model.path
    accuracy = referee.judge(run.judged(run.builder.deployed(path)))
    kept, precision = kept_layers.before_timing(run), run.settings.precision
    nothing = Outcome(Plan(), {}, referee.budget, precision=precision, kept=kept)
    return _timed(run, replace(nothing, accuracy=_as_asked(run, accuracy), staged=path))


def _searched(run: Run, teacher: School | None, alone: Outcome | None = None) -> Outcome:
    """Ranks by a strategy, from measured times and judged accuracy; in int8, where the model is
    measured `alone`, the layers to beat are in int8, too."""
    begun = now()
    referee = _referee(run)
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
        return _fitted(run, replace(outcome, plan=plan), referee)

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
    front = write_front(run, menu, outcome, lambda plan: _timed(run, final(plan)), folder)
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
        found = _timed(run, found)
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


def _fitted(run: Run, outcome: Outcome, referee: Referee) -> Outcome:
    """The outcome of a plan fitted in full, with the surgery checked and the accuracy taken."""
    run.progress("fit the plan", 0, 1)
    chains = run.builder.chains(outcome.plan)
    staged = run.builder.build_of(chains)
    verification = checked(run, staged).verification
    accuracy = _as_asked(run, referee.judge(run.judged(run.builder.deployed(staged))))
    outcome = replace(
        outcome, accuracy=accuracy, verification=verification, staged=staged, chains=chains
    )
    if run.settings.precision == FLOAT32:
        return outcome
    return replace(outcome, chained=_as_asked(run, referee.judge(run.judged(staged))))


def _as_asked(run: Run, accuracy: AccuracyRecord) -> AccuracyRecord:
    """Without a budget where none was asked for."""
    settings = run.settings
    asked = settings.limits.target_speedup is not None or settings.plan.is_forced
    return unjudged(accuracy) if asked and not settings.limits.is_given else accuracy


def _recovered(
    run: Run, teacher: School, asked: Search, without: Outcome, deadline: float
) -> Outcome:
    """What training makes of a search's outcome: for a budget of time of the same plan, else
    of the fastest one that it brings within the budget. The same plan is the same graph, so what
    was timed before the training counts, too: else noise could refuse a speed-up just proven."""
    if without.budget.seconds is not None:
        if without.staged is None:
            return without
        found = _timed(run, teacher.finished(without, asked.court.referee))
        if without.timings is None or found.timings is None:
            return found
        (dense, chained), (old, new) = without.timings, found.timings
        return replace(found, timings=(dense + old, chained + new))

    def timed(outcome: Outcome) -> Outcome:
        return _timed(run, outcome)

    limit = without.budget.limit
    return Recovery(teacher, asked, timed, limit, deadline).best(without)


def _timed(run: Run, outcome: Outcome) -> Outcome:
    """With the whole model timed, where it can run as it will and the machine lets it tell."""
    if outcome.staged is None or not run.runs_here:
        return outcome
    try:
        return replace(outcome, timings=_time(run, run.builder.deployed(outcome.staged)), busy=None)
    except TooBusy as error:
        return replace(outcome, timings=None, busy=error.text)


def _time(run: Run, staged: Path) -> tuple[Timing, Timing]:
    """Original and rewritten model in turns, as the user will run them."""
    turns = run.settings.asked.target.iterations
    before, after = time_models(
        (run.model.path, staged),
        run.inputs.timed_feeds,
        run.settings.target,
        turns=turns,
        warmup=5,
        seconds=run.time.at_most(SECONDS, LEAST_BENCHMARK),
        progress=lambda done: run.progress("benchmark", max(done, 0), turns),
    )
    return before, after
