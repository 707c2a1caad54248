"""optimize(): the only place where the parts meet.

load → find sites → time candidates → search, fitting on demand → rewrite → surgery check →
accuracy → whole-model benchmark → write. Nothing reaches the output path before the last
step; everything before it happens in a folder that goes with the run.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from onnxcp.artifacts.publishing import publish
from onnxcp.graph import io
from onnxcp.latency.candidates import Latency, measure
from onnxcp.latency.tabulate import contexts
from onnxcp.measure.stopwatch import stopwatch
from onnxcp.measure.time_budget import TimeBudget, now
from onnxcp.optimization import kept_layers
from onnxcp.optimization.calibration import learn_inputs
from onnxcp.optimization.decision import decide, foreign
from onnxcp.optimization.exact_run import optimize_exactly
from onnxcp.optimization.forced_ranks import forced_choices
from onnxcp.optimization.open_run import open_run
from onnxcp.optimization.outcome import Outcome, name_of
from onnxcp.optimization.output_files import reserve_outputs
from onnxcp.optimization.plan_outcome import as_asked, fitted_outcome, referee_of, timed_outcome
from onnxcp.optimization.precisions import fastest
from onnxcp.optimization.rank_search import searched_outcome
from onnxcp.optimization.reasons import Kind, because
from onnxcp.optimization.run import Run
from onnxcp.optimization.settings import Settings
from onnxcp.optimization.summary import summarise
from onnxcp.optimization.training import School, school
from onnxcp.plan import Budget, Choice, Plan, plan_file, to_json
from onnxcp.progress import Progress, silent
from onnxcp.quantization.precision import FLOAT32
from onnxcp.results import Report


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
            staged = run.folder / settings.output.name
            io.copy(run.model.path, staged)
            _write(run, texts, staged, Plan())
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
        return searched_outcome(run, teacher)
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


def _forced(run: Run, teacher: School | None) -> Outcome:
    """Ranks as given: each site in the faster form where a rank was given and the form was not."""
    asked = forced_choices(run)
    if not asked:
        return _nothing_to_do(run)
    referee = referee_of(run)
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
    fitted = fitted_outcome(run, replace(nothing, plan=plan), referee)
    return timed_outcome(run, fitted if teacher is None else teacher.finished(fitted, referee))


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
    chained = searched_outcome(run, teacher, alone)
    took = now() - begun
    kept = {**chained.kept, **kept_layers.beaten(chained.plan, name_of(alone))}
    found = [chained, replace(alone, latency=chained.latency, table=chained.table, kept=kept)]
    if not foreign(run) and not run.recipe.sequential and took <= run.time.left:
        found.append(searched_outcome(run.in_precision(FLOAT32), None))
    known = [outcome for outcome in found if outcome.staged is not None]
    best = fastest(run, known, run.settings.limits.target_speedup)
    if best.recovered is None and chained.recovered is not None:
        best = replace(best, recovered=chained.recovered.of_another)
    return best


def _alone(run: Run) -> Outcome:
    """The model in int8, without any chain."""
    referee, path = referee_of(run), run.model.path
    accuracy = referee.judge(run.judged(run.builder.deployed(path)))
    kept, precision = kept_layers.before_timing(run), run.settings.precision
    nothing = Outcome(Plan(), {}, referee.budget, precision=precision, kept=kept)
    return timed_outcome(run, replace(nothing, accuracy=as_asked(run, accuracy), staged=path))
