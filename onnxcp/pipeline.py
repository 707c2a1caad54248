"""optimize(): the only place where the parts meet.

load → find sites → time candidates → search, fitting on demand → rewrite → surgery check →
accuracy → whole-model benchmark → write. Nothing reaches the output path before the last
step; everything before it happens in a folder that goes with the run.
"""

import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from onnxcp import files
from onnxcp.benchmark import Timing, take_turns
from onnxcp.errors import SurgeryError
from onnxcp.fitting import FULL
from onnxcp.forms import DRAFT, Effort
from onnxcp.job import Job, Settings, open_job
from onnxcp.judging import Referee, unjudged
from onnxcp.latency import Latency, candidates, measure
from onnxcp.plan import Budget, Candidate, Menu, Plan, Score, to_json
from onnxcp.progress import Progress, silent
from onnxcp.providers import open_runner
from onnxcp.report.record import Report, VerificationRecord
from onnxcp.search import STRATEGIES
from onnxcp.sequential import refine
from onnxcp.summary import Outcome, decide, summarise
from onnxcp.verify import compare

SECONDS = 20.0  # at most, for the whole-model benchmark
FITS_A_SITE = 7  # what a search asks for, as seen on residual networks: for the estimate


def optimize(settings: Settings, command: str = "", progress: Progress = silent) -> Report:
    """Make a model faster within its budget, or say why not.

    The model and its plan are written if the report's exit code is 0; otherwise nothing is.

    Raises:
        OnnxcpError: unusable input, option, plan, provider or output; or a rewritten model
            that does not compute what its chains stand for (`SurgeryError`).
    """
    with open_job(settings, progress) as job:
        outcome = run(job)
        decision = decide(job, outcome)
        report = summarise(job, outcome, decision, command)
        if decision.accepted:
            assert outcome.staged is not None
            _write(job, outcome.staged, outcome.plan)
        elif decision.exit_code == 0:
            _write(job, _copy(job.model.path, job.folder / settings.output.name), Plan())
        return report


def plan_file(output: Path) -> Path:
    """Where the plan of a model lies."""
    return output.with_suffix(".plan.json")


def _write(job: Job, staged: Path, plan: Plan) -> None:
    output = job.settings.output
    files.move(staged, output)
    files.write_text(plan_file(output), to_json(plan, job.model.sha256, job.recipe))


def _copy(source: Path, staged: Path) -> Path:
    """The input written through, external data too."""
    model = files.load(source)
    if model.external:
        files.save(model.proto, staged, model.external)
    else:
        shutil.copyfile(source, staged)
    return staged


def run(job: Job) -> Outcome:
    """Find a plan and measure what it does to the model.

    Raises:
        SurgeryError: the rewritten model does not compute what its chains stand for.
    """
    settings = job.settings
    asked = job.choices()
    if not asked:  # so the model need not even run
        return Outcome(Plan(), {}, Budget(0.0, "not judged: nothing to replace"))
    original = job.judged(job.model.path)
    referee = Referee(original, job.inputs, settings.limits, job.progress)
    latency = measure(
        asked,
        job.sites,
        settings.target,
        time.perf_counter,
        seed=settings.seed,
        progress=job.progress,
    )
    job.calibrate([name for name, row in latency.items() if _is_wanted(row, settings)])
    if settings.is_forced:
        return _measured(job, Outcome(_forced(latency), latency, referee.budget), referee)
    for effort in (DRAFT, FULL):  # drafts nearly always suffice to choose by
        plan = _search(job, latency, referee, effort)
        outcome = _measured(job, Outcome(plan, latency, referee.budget), referee)
        if outcome.accuracy is None or outcome.accuracy.drop <= referee.budget.limit:
            break
    return outcome


def _is_wanted(row: Latency, settings: Settings) -> bool:
    return settings.is_forced or any(m.is_faster for m in row.tried)


def _forced(latency: Mapping[str, Latency]) -> Plan:
    """The faster form where a rank was given and the form was not."""
    best = {name: min(row.tried, key=lambda m: m.seconds) for name, row in latency.items()}
    return Plan({name: measured.choice for name, measured in best.items()})


def _search(job: Job, latency: Mapping[str, Latency], referee: Referee, effort: Effort) -> Plan:
    """The plan a strategy finds with fits of a given effort."""
    sites = {n: found for n, row in latency.items() if (found := candidates(n, row))}
    fitted: set[Candidate] = set()
    expected = FITS_A_SITE * len(sites)

    def error(candidate: Candidate) -> float:
        fitted.add(candidate)
        job.progress("fit candidates", min(len(fitted), expected - 1), expected)
        return job.fits.error(candidate.site, candidate.choice, effort)

    def judge(plan: Plan) -> Score:
        return Score(referee.judge(job.judged(job.build(plan, effort))).drop)

    return STRATEGIES[job.settings.strategy](
        Menu(sites, error, job.parallel), referee.budget, judge
    )


def _measured(job: Job, outcome: Outcome, referee: Referee) -> Outcome:
    """The outcome of a plan, with the surgery checked, accuracy and time taken."""
    if not outcome.plan.choices:
        return outcome
    job.progress("fit the plan", 0, 1)
    if job.settings.recipe.sequential:
        refine(job, outcome.plan)
    settings, staged = job.settings, job.build(outcome.plan)
    verification = _check_surgery(job, outcome.plan)
    accuracy = referee.judge(job.judged(staged))
    if settings.is_forced and not settings.limits.is_given:
        accuracy = unjudged(accuracy)
    return replace(
        outcome,
        accuracy=accuracy,
        verification=verification,
        timings=_time(job, staged),
        staged=staged,
    )


def _check_surgery(job: Job, plan: Plan) -> VerificationRecord:
    """Every changed site's output, and the model's, against dense reconstructed kernels."""
    job.progress("check the surgery", 0, 1)
    dtypes = {s.kernel.dtype for s in job.sites if s.name in plan.choices}
    tolerance = max(job.settings.target.tolerance(dtype) for dtype in dtypes)
    dense, chained = (job.judged_runner(path) for path in job.build_watched(plan))
    feeds = job.inputs.checked
    verdict = compare(dense, chained, dense.outputs, feeds, most_l2=tolerance)
    if not verdict.ok:
        failed = next(o for o in verdict.outputs if not o.ok)
        raise SurgeryError(
            f"{job.model.path}: tensor {failed.output!r} of the rewritten model is not what its "
            f"chains stand for: {failed.failure}. This is a bug in onnxcp: nothing was written; "
            "please report it with the model"
        )
    return VerificationRecord(True, verdict.relative_l2, tolerance, verdict.samples)


def _time(job: Job, staged: Path) -> tuple[Timing, Timing]:
    """Original and rewritten model in turns, as the user will run them."""
    target, feeds = job.settings.target, job.inputs.timed
    original, rewritten = open_runner(job.model.path, target), open_runner(staged, target)
    turns = job.settings.turns
    before, after = take_turns(
        [lambda: original(feeds), lambda: rewritten(feeds)],
        time.perf_counter,
        turns=turns,
        warmup=5,
        seconds=SECONDS,
        progress=lambda done: job.progress("benchmark", max(done, 0), turns),
    )
    return before, after
