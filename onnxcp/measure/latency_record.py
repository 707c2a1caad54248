"""Times of the original and of another model, as results hold them."""

from collections.abc import Mapping

from onnxcp.measure.timing import Timing, disturbance, speedup
from onnxcp.results import LatencyRecord
from onnxcp.runtime.providers import Target


def latency_record(
    timings: tuple[Timing, Timing], target: Target, shapes: Mapping[str, tuple[int, ...]]
) -> LatencyRecord:
    """Percentiles in milliseconds before and after, and the ratio with its 95 % interval."""
    before, after = timings
    ratio, other = speedup(before, after), disturbance(before, after)
    return LatencyRecord(
        before=before.milliseconds(),
        after=after.milliseconds(),
        speedup=ratio.ratio,
        speedup_ci=(ratio.low, ratio.high),
        turns=len(before.seconds),
        threads=target.count,
        threads_from=target.why_count,
        provider=target.name,
        shapes=dict(shapes),
        disturbed=other.disturbed,
        by_processor=other.by_processor,
    )
