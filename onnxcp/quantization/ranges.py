"""The range of every activation that 8 bits represent, from calibration samples.

A range includes zero, because padding and ReLU produce exact zeros. Only extremes and histograms
are kept, so memory does not grow with the number of samples. A method that clips runs them twice:
for the extremes, and for the histogram between them.
"""

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from onnxcp.arrays import Int64
from onnxcp.errors import DataError
from onnxcp.graph.input_specs import Feeds

BINS = 2048
STEPS = 255  # between the least and the largest number of 8 bits
TRIED = 100  # ends that least squared error chooses among
ROUNDS = 2  # in which each end is chosen while the other stays

Range = tuple[float, float]  # from zero or below to zero or above
Activations = Callable[[Feeds], Mapping[str, np.ndarray]]
Histogram = Int64[np.ndarray, " bins"]  # of values from one end of a range to the other


def extremes(run: Activations, batches: Iterable[Feeds]) -> dict[str, Range]:
    """The smallest and the largest value of every activation.

    Raises:
        DataError: an activation is NaN or infinite.
    """
    found: dict[str, Range] = {}
    for feeds in batches:
        for name, values in run(feeds).items():
            found[name] = _with(found.get(name, (0.0, 0.0)), values, name)
    return found


def _with(found: Range, values: np.ndarray, name: str) -> Range:
    if not values.size:
        return found
    low, high = float(values.min()), float(values.max())  # NaN goes through both
    if not math.isfinite(low - high):
        raise DataError(
            f"activation {name!r} is NaN or infinite on calibration samples; check that they are "
            "preprocessed as the model wants them, or leave the node that gives it in float"
        )
    return min(found[0], low), max(found[1], high)


def histograms(
    run: Activations, batches: Iterable[Feeds], found: Mapping[str, Range]
) -> dict[str, Histogram]:
    """A histogram of every activation between its extremes."""
    counts = {name: np.zeros(BINS, np.int64) for name in found}
    for feeds in batches:
        for name, values in run(feeds).items():
            counts[name] += np.histogram(values, BINS, _widened(found[name]))[0]
    return counts


def _widened(found: Range) -> Range:
    return found if found[0] < found[1] else (0.0, 1.0)


def percentile(counts: Histogram, found: Range, percent: float) -> Range:
    """The range with this percentage of the values, and equally many above and below it."""
    edges = np.linspace(*found, BINS + 1)
    share = np.cumsum(counts) / max(1, counts.sum())
    outside = (100 - percent) / 200
    low = edges[int(np.searchsorted(share, outside, side="right"))]
    high = edges[min(int(np.searchsorted(share, 1 - outside)), BINS - 1) + 1]
    return min(0.0, float(low)), max(0.0, float(high))


def least_error(counts: Histogram, found: Range) -> Range:
    """The range for which rounding and clipping have the least sum of squared errors.

    The bin of zero is left out, because zeros stay exact.
    """
    edges = np.linspace(*found, BINS + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    weights = np.where((edges[:-1] <= 0) & (edges[1:] >= 0), 0, counts)

    def error(low: float, high: float) -> float:
        moved = centres - np.clip(centres, low, high)
        return float(weights @ (moved**2 + ((high - low) / STEPS) ** 2 / 12))

    low, high = found
    shares = np.linspace(1, 0, TRIED, endpoint=False).tolist()
    for _ in range(ROUNDS):
        high = min((share * found[1] for share in shares), key=lambda end: error(low, end))
        low = min((share * found[0] for share in shares), key=lambda end: error(end, high))
    return low, high
