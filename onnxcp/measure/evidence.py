"""Whether samples decide a budget: by the position of the drop's interval, not its width.

A run accepts by the measured drop. Whether that holds for other samples is reported beside the
verdict: the budget is met if the whole interval is within it, exceeded if the whole interval is
beyond it, and undecided otherwise. If several plans were evaluated on the same samples, one may
have passed by chance: each interval is then widened, so that all of them hold at once with 95 %
(Bonferroni).
"""

import math
from dataclasses import dataclass
from enum import Enum
from statistics import NormalDist

from onnxcp.results import AccuracyRecord
from onnxcp.words import plural

DOUBT = 0.05  # 1 minus the confidence
MOST_SAMPLES = 1_000_000  # more are not worth a word: the drop is at the budget
RIGHT_OR_WRONG = ("top1", "top5", "agreement")  # metrics of which a sample tells a yes or a no


class Evidence(Enum):
    """What samples show about a budget."""

    HOLDS = "holds"
    BROKEN = "broken"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Weighed:
    """The interval of a drop, for as many plans as were judged, and what it says; `enough` is
    about how many judging samples would decide, None where no practical number would."""

    evidence: Evidence
    low: float
    high: float
    enough: int | None


def weigh(found: AccuracyRecord, plans: int = 1) -> Weighed | None:
    """What a measured drop says of its budget; None without a budget or an interval."""
    if found.budget is None or found.drop_ci is None:
        return None
    low, high = widened(found.drop_ci, plans)
    if high <= found.budget:
        evidence = Evidence.HOLDS
    elif low > found.budget:
        evidence = Evidence.BROKEN
    else:
        evidence = Evidence.OPEN
    apart = abs(found.budget - found.drop)
    return Weighed(evidence, low, high, _enough(found.samples, (high - low) / 2, apart))


def is_coarse(metric: str, samples: int, budget: float) -> bool:
    """Whether one wrong answer more is over the budget already: so few samples then pass nearly
    any model, if they happen to be easy."""
    return metric in RIGHT_OR_WRONG and 0 < budget * samples < 1


def widened(interval: tuple[float, float], plans: int) -> tuple[float, float]:
    """A 95 % interval widened to one of several that hold at once with 95 %."""
    if not all(map(math.isfinite, interval)):
        return interval
    normal = NormalDist()
    wider = normal.inv_cdf(1 - DOUBT / 2 / max(1, plans)) / normal.inv_cdf(1 - DOUBT / 2)
    middle, half = sum(interval) / 2, (interval[1] - interval[0]) / 2
    return middle - wider * half, middle + wider * half


def _enough(samples: int, half: float, apart: float) -> int | None:
    """An interval shrinks with the root of the number of samples."""
    if not (apart > 0 and math.isfinite(half)):
        return None
    number = samples * (half / apart) ** 2
    return None if number > MOST_SAMPLES else max(samples, _rounded_up(number))


def _rounded_up(number: float) -> int:
    """To two digits."""
    unit = 10.0 ** max(0, math.floor(math.log10(max(number, 1))) - 1)
    return round(math.ceil(number / unit) * unit)


def doubt(found: AccuracyRecord, weighed: Weighed, *, plans: int, share: float) -> str | None:
    """A warning, where samples do not prove that a budget holds. `share` is that of the samples
    of `data` that judge."""
    if weighed.evidence is Evidence.HOLDS:
        return None
    worse, interval = found.worsening, f"from {weighed.low:+.4f} to {weighed.high:+.4f}"
    several = f", allowing for the {plans} plans judged" if plans > 1 else ""
    if weighed.evidence is Evidence.BROKEN:
        return f"the {worse}'s 95 % interval is {interval}{several}: beyond {found.budget:.4g}"
    if not math.isfinite(weighed.high):
        remedy = "give more"
    elif weighed.enough is None:
        remedy = f"no practical number would: the {worse} is too near the budget"
    else:
        total = _rounded_up(weighed.enough / share)
        remedy = f"about {weighed.enough:,} judging samples would ({total:,} in <<data>>)"
    count = plural(found.samples, "sample")
    return (
        f"measured: a {worse} of {found.drop:+.4f}, budget {found.budget:.4g}; but the 95 % "
        f"interval of {count} is {interval}{several}, so they cannot tell whether the budget "
        f"holds for others; {remedy}"
    )
