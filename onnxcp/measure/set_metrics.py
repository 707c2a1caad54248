"""Metrics that are a function of the whole evaluation set: mAP, mIoU, word error rate.

Outputs are {name: array [samples, …]}. Where samples run one at a time, because the model takes
one or gives outputs without a row for each sample, they are {name: list of what every run gave}.
"""

from collections.abc import Sequence

import numpy as np

from onnxcp.arrays import Float64
from onnxcp.errors import UsageError
from onnxcp.measure.metrics import Labels, Metric, Named

DRAWS = 100  # of samples, for the interval


def value(metric: Metric, outputs: Named, labels: Labels) -> float:
    """What the user's function returns.

    Raises:
        UsageError: it fails, or returns no number.
    """
    assert metric.function is not None
    try:
        return float(metric.function(outputs, labels))
    except Exception as error:
        raise UsageError(
            f"<<metric={metric.name}>>: {type(error).__name__}: {error}; it is called with the "
            "outputs as {name: array [samples, …]}, or a list of what every run gave where samples "
            "run one at a time, and the labels; it returns a number"
        ) from error


def drawn(metric: Metric, outputs: Named, labels: Labels) -> Float64[np.ndarray, " draws"]:
    """The metric on samples drawn with replacement: the same ones for all models."""
    count = len(next(iter(outputs.values())))
    rng, values = np.random.default_rng(0), list[float]()
    for _ in range(DRAWS):
        rows = rng.integers(0, count, count)
        some = {name: _taken(array, rows) for name, array in outputs.items()}
        values.append(value(metric, some, None if labels is None else labels[rows]))
    return np.array(values)


def joined(parts: Sequence[np.ndarray], *, alone: bool) -> np.ndarray | list[np.ndarray]:
    """Batches [samples, …] as one array; of samples that ran alone a list, as the runs gave
    them."""
    return list(parts) if alone else np.concatenate(parts)


def _taken(array: np.ndarray | list[np.ndarray], rows: np.ndarray) -> np.ndarray | list[np.ndarray]:
    if isinstance(array, np.ndarray):
        taken: np.ndarray = array[rows]
        return taken
    return [array[row] for row in rows]
