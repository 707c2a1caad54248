"""What becomes of one plan: it is fitted, built, checked, judged and timed."""

from dataclasses import replace
from pathlib import Path

from onnxcp.errors import TooBusy
from onnxcp.measure.compare import time_models
from onnxcp.measure.evaluator import Referee, unjudged
from onnxcp.measure.timing import Timing
from onnxcp.optimization.outcome import Outcome
from onnxcp.optimization.run import Run
from onnxcp.optimization.self_check import checked
from onnxcp.quantization.precision import FLOAT32
from onnxcp.results import AccuracyRecord

SECONDS, LEAST_BENCHMARK = 20.0, 1.0  # at most and at least, for the whole-model benchmark


def referee_of(run: Run) -> Referee:
    """What judges the models of a run by its original."""
    original = run.judged(run.model.path)
    return Referee(original, run.inputs, run.settings.limits, run.progress, run.outputs)


def fitted_outcome(run: Run, outcome: Outcome, referee: Referee) -> Outcome:
    """The outcome of a plan fitted in full, with the surgery checked and the accuracy taken."""
    run.progress("fit the plan", 0, 1)
    chains = run.builder.chains(outcome.plan)
    staged = run.builder.build_of(chains)
    verification = checked(run, staged).verification
    accuracy = as_asked(run, referee.judge(run.judged(run.builder.deployed(staged))))
    outcome = replace(
        outcome, accuracy=accuracy, verification=verification, staged=staged, chains=chains
    )
    if run.settings.precision == FLOAT32:
        return outcome
    return replace(outcome, chained=as_asked(run, referee.judge(run.judged(staged))))


def as_asked(run: Run, accuracy: AccuracyRecord) -> AccuracyRecord:
    """Without a budget where none was asked for."""
    settings = run.settings
    asked = settings.limits.target_speedup is not None or settings.plan.is_forced
    return unjudged(accuracy) if asked and not settings.limits.is_given else accuracy


def timed_outcome(run: Run, outcome: Outcome) -> Outcome:
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
