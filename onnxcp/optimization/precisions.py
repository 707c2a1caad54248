"""int8 with chains, int8 alone, chains in float: which is fastest within the budget.

On small networks float chains are faster than int8, on large ones int8 alone equals them, and
both together may be faster than either, or lose too much. So all three are made, judged and
timed, and what is found is timed once more in turns with every other.
"""

from collections.abc import Sequence
from dataclasses import replace

from onnxcp.errors import TooBusy
from onnxcp.measure.compare import time_models
from onnxcp.measure.timing import Timing, speedup
from onnxcp.optimization.outcome import Outcome, name_of
from onnxcp.optimization.run import Run
from onnxcp.results import RivalRecord

SECONDS, LEAST = 10.0, 1.0  # at most and at least, for one pair in turns


def fastest(run: Run, found: Sequence[Outcome], wanted: float | None) -> Outcome:
    """Of outcomes that are judged and timed the fastest within the budget, with the others as
    its rivals; where a speed-up is `wanted`, of those that reach it the one that loses least.
    Where none is within the budget, the first."""
    within = [outcome for outcome in found if outcome.is_within]
    ranked = sorted(within, key=_speedup, reverse=True) or list(found)
    if wanted is not None:
        enough = [outcome for outcome in ranked if _speedup(outcome) >= wanted]
        ranked = sorted(enough, key=_drop) or ranked
    best, rivals = ranked[0], list[RivalRecord]()
    for other in found:
        if other is not best:
            rivals.append(_record(run, other, best))
    return replace(best, rivals=tuple(rivals))


def _speedup(outcome: Outcome) -> float:
    return 1.0 if outcome.timings is None else speedup(*outcome.timings).ratio


def _drop(outcome: Outcome) -> float:
    return 0.0 if outcome.accuracy is None else outcome.accuracy.drop


def _record(run: Run, other: Outcome, best: Outcome) -> RivalRecord:
    timings = other.timings
    return RivalRecord(
        name=name_of(other),
        within=other.is_within,
        drop=_drop(other),
        ms=None if timings is None else 1e3 * timings[1].median,
        speedup=None if timings is None else speedup(*timings).ratio,
        behind=_behind(run, other, best) if other.is_within else None,
    )


def _behind(run: Run, other: Outcome, best: Outcome) -> tuple[float, float, float] | None:
    """How much faster the best is than another, in turns; None where nothing tells."""
    if best.timings is None or other.timings is None:
        return None
    try:
        ratio = speedup(*_turns(run, [other, best]))
    except TooBusy:
        return None
    return ratio.ratio, ratio.low, ratio.high


def _turns(run: Run, outcomes: Sequence[Outcome]) -> tuple[Timing, ...]:
    staged = [(run.in_precision(o.precision), o.staged) for o in outcomes]
    return time_models(
        [run.builder.deployed(path) for run, path in staged if path is not None],
        run.inputs.timed_feeds,
        run.settings.target,
        turns=run.settings.asked.target.iterations,
        warmup=5,
        seconds=run.time.at_most(SECONDS, LEAST),
    )
