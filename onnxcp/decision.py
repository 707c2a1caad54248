"""What becomes of an outcome: the model is written, or nothing is, with the reason."""

from dataclasses import dataclass

from onnxcp.benchmark import speedup
from onnxcp.job import Job
from onnxcp.outcome import Outcome
from onnxcp.precision import FLOAT32
from onnxcp.report.words import loss

SLACK = 0.02  # of a speed-up that only a table tells


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the rewritten model is the result; if not, nothing is, or the input itself."""

    accepted: bool
    exit_code: int
    words: str  # one sentence


def decide(job: Job, outcome: Outcome) -> Decision:
    """What becomes of an outcome: within the budget and clearly faster, or not."""
    found = outcome.accuracy
    if found is None or outcome.staged is None:
        return _refused(job, _why_nothing(job, outcome))
    faster, words = _speed(job, outcome)
    lost = loss(found)
    if found.budget is not None and found.drop > found.budget:
        return _refused(job, f"over budget: {lost}, ≤ {found.budget:.4g} asked")
    if job.settings.is_forced:
        return Decision(True, 0, f"ranks as given: {words}, {lost}")
    if not faster:
        return _refused(job, f"not faster as a whole: {words}, {lost}")
    wanted = job.settings.target_speedup
    if wanted is not None and not _reaches(job, outcome, wanted):
        return _refused(job, f"{wanted:g}× faster is not reached: {words}, {lost}")
    return Decision(True, 0, f"{words}, {lost}")


def _speed(job: Job, outcome: Outcome) -> tuple[bool, str]:
    """Whether a plan makes the model faster, and how much: as measured on this machine; by the
    latency table where that is of another one."""
    if outcome.timings is not None and not foreign(job):
        ratio = speedup(*outcome.timings)
        return ratio.low > 1, ratio.verdict()
    than = "" if outcome.precision == FLOAT32 else " than int8 alone"
    by_table = _predicted_speedup(outcome)
    return by_table > 1, f"{by_table:.2f}× faster{than} by the latency table"


def _reaches(job: Job, outcome: Outcome, wanted: float) -> bool:
    if outcome.timings is not None and not foreign(job):
        return speedup(*outcome.timings).ratio >= wanted
    return _predicted_speedup(outcome) >= wanted * (1 - SLACK)


def _predicted_speedup(outcome: Outcome) -> float:
    trail, table = outcome.trail, outcome.table
    if table is None or trail is None or not trail.predicted:
        return 1.0
    return table.before / trail.predicted


def foreign(job: Job) -> list[str]:
    """In what this machine differs from the one that the ranks are for."""
    if job.table is None:
        return []
    return job.table.foreign()


def _refused(job: Job, why: str) -> Decision:
    if job.settings.allow_unchanged:
        return Decision(False, 0, f"left unchanged, {why}")
    return Decision(False, 1, f"nothing written, {why}")


def _why_nothing(job: Job, outcome: Outcome) -> str:
    if not job.sites:
        return "the model has no convolution that a chain could replace"
    if not outcome.latency:
        return "no site is left by the options"
    faster = [n for n, row in outcome.latency.items() if any(m.is_faster for m in row.tried)]
    if not faster:
        return "no chain is measured faster than the convolution it would replace"
    if outcome.trail is not None and outcome.trail.is_late:
        return "the time budget ended before a plan was found; raise --time-budget"
    if outcome.budget.seconds is not None:
        return f"even the fastest chains are not {outcome.budget.words} by the latency table"
    return f"no plan that is faster stays within {outcome.budget.words}"
