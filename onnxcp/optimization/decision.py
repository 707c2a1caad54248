"""What becomes of an outcome: the model is written, or nothing is, with the reason."""

from dataclasses import dataclass

from onnxcp.measure.evidence import Evidence, weigh
from onnxcp.measure.timing import speedup
from onnxcp.optimization.outcome import Outcome, name_of
from onnxcp.optimization.reasons import Kind, Reason, because
from onnxcp.optimization.run import Run
from onnxcp.quantization.precision import FLOAT32
from onnxcp.words import loss, plural

ACCEPTED = (Kind.FASTER, Kind.IN_FLOAT, Kind.FORCED)
SLACK = 0.02  # of a speed-up that only a table tells


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the rewritten model is the result; if not, nothing is, or the input itself."""

    accepted: bool
    exit_code: int
    words: str  # one sentence
    reason: Reason


def decide(run: Run, outcome: Outcome, *, asked: str) -> Decision:
    """What becomes of an outcome: within the budget and clearly faster, or not. `asked` is the
    precision asked for."""
    reason = _reason(run, outcome, asked)
    if reason.kind in ACCEPTED:
        return Decision(True, 0, reason.words, reason)
    if run.settings.limits.allow_unchanged:
        return Decision(False, 0, f"left unchanged, {reason.words}", reason)
    return Decision(False, 1, f"nothing written, {reason.words}", reason)


def _reason(run: Run, outcome: Outcome, asked: str) -> Reason:
    found = outcome.accuracy
    if found is None or outcome.staged is None:
        return outcome.why or because(Kind.NO_LAYERS)
    if _is_unprovable(run, outcome):
        return because(Kind.UNRELIABLE_TABLE)
    is_faster, speed = _speed(run, outcome)
    lost = loss(found)
    if found.budget is not None and not found.drop <= found.budget:
        return because(Kind.OVER_BUDGET, what=name_of(outcome), lost=lost, budget=found.budget)
    lost += _unproven(outcome)
    if run.settings.plan.is_forced:
        return because(Kind.FORCED, speed=speed, lost=lost)
    if outcome.busy is not None and not foreign(run):
        return because(Kind.TOO_BUSY, why=outcome.busy)
    if not is_faster:
        return because(Kind.SLOWER, what=name_of(outcome), speed=speed, lost=lost)
    wanted = run.settings.limits.target_speedup
    if wanted is not None and not _reaches(run, outcome, wanted):
        return because(Kind.SHORT_OF_TARGET, wanted=wanted, speed=speed, lost=lost)
    if outcome.precision == asked:
        return because(Kind.FASTER, speed=speed, lost=lost)
    names = {"written": outcome.precision, "asked": asked, "what": name_of(outcome)}
    return because(Kind.IN_FLOAT, speed=speed, lost=lost, **names)


def _unproven(outcome: Outcome) -> str:
    """What a verdict adds where the samples cannot tell whether the budget holds."""
    found = outcome.accuracy
    weighed = None if found is None else weigh(found, outcome.plans_judged)
    if found is None or weighed is None or weighed.evidence is Evidence.HOLDS:
        return ""
    return f", within the budget as measured, not proven by {plural(found.samples, 'sample')}"


def _is_unprovable(run: Run, outcome: Outcome) -> bool:
    """Whether the table alone could tell the speed, and tells nothing."""
    table = outcome.table
    is_told = run.settings.plan.is_forced or table is None or table.is_reliable
    return bool(foreign(run)) and not is_told


def _speed(run: Run, outcome: Outcome) -> tuple[bool, str]:
    """Whether a plan makes the model faster, and how much: as measured on this machine; by the
    latency table where that is of another one."""
    if outcome.busy is not None and not foreign(run):
        return False, outcome.busy
    if outcome.timings is not None and not foreign(run):
        ratio = speedup(*outcome.timings)
        return ratio.is_faster, ratio.verdict()
    than = "" if outcome.precision == FLOAT32 else " than int8 alone"
    by_table = _predicted_speedup(outcome)
    return by_table > 1, f"{by_table:.2f}× faster{than} by the latency table"


def _reaches(run: Run, outcome: Outcome, wanted: float) -> bool:
    if outcome.timings is not None and not foreign(run):
        return speedup(*outcome.timings).ratio >= wanted
    return _predicted_speedup(outcome) >= wanted * (1 - SLACK)


def _predicted_speedup(outcome: Outcome) -> float:
    trail, table = outcome.trail, outcome.table
    if table is None or trail is None or not trail.predicted:
        return 1.0
    return table.before / trail.predicted


def foreign(run: Run) -> list[str]:
    """In what this machine differs from the one that the ranks are for."""
    if run.table is None:
        return []
    return run.table.foreign()
