"""The quality a budget is stated in, with its confidence interval.

Every metric gives one number per sample, higher is better. The drop is the mean of the
paired differences, original minus candidate, on the same samples; pairing takes out what
is merely hard or easy about them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from onnxcp.arrays import Float64
from onnxcp.errors import DataError, UsageError
from onnxcp.progress import Progress, silent
from onnxcp.samples import Batching, Samples
from onnxcp.tensors import Feeds

Outputs = Callable[[Feeds], Sequence[np.ndarray]]
Scores = Float64[np.ndarray, " samples"]


@runtime_checkable
class Everywhere(Protocol):
    """A runner that takes all batches at once, as that of a cluster does."""

    def first_outputs(self, samples: Samples, batching: Batching) -> Iterator[np.ndarray]:
        """The model's first output, batch by batch."""


Z95 = 1.959964  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of `METRICS`: `score(output, reference, labels)` gives a number per sample.

    `output` and `reference` are the candidate's and the original model's first outputs.
    """

    name: str
    needs_labels: bool
    score: Callable[[np.ndarray, np.ndarray, np.ndarray | None], Scores]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A metric before and after, and the drop with its 95 % interval (absolute); `change` is
    the squared change of the first output relative to its size, in sum."""

    metric: str
    before: float
    after: float
    drop: float
    drop_ci: tuple[float, float]
    samples: int
    change: float = 0.0


def _classes(output: np.ndarray) -> np.ndarray:
    """Scores as [N, classes]; trailing axes of length one are dropped."""
    if output.ndim < 2 or math.prod(output.shape[2:]) != 1:
        shape = "x".join(map(str, output.shape))
        raise UsageError(
            f"top-k needs class scores as the first output, the model gives {shape}; "
            "choose --metric agreement, cosine or psnr"
        )
    return output.reshape(output.shape[:2])


def _top(k: int) -> Callable[[np.ndarray, np.ndarray, np.ndarray | None], Scores]:
    def score(output: np.ndarray, reference: np.ndarray, labels: np.ndarray | None) -> Scores:
        del reference
        scores = _classes(output)
        assert labels is not None
        _check_labels(labels, scores.shape[1])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        hit: Scores = (best == labels.reshape(-1, 1)).any(axis=1).astype(np.float64)
        return hit

    return score


def _are_classes(labels: np.ndarray) -> bool:
    """One whole number a sample."""
    return labels.dtype.kind in "iu" and labels.size == len(labels)


def _check_labels(labels: np.ndarray, classes: int) -> None:
    if not _are_classes(labels):
        raise DataError(
            f"top-k needs one class number a sample, the labels are {labels.dtype} of shape "
            f"{labels.shape}; convert the labels of --data"
        )
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise DataError(
            f"label {wrong.flat[0]} is out of range: the model has {classes} classes "
            f"(0..{classes - 1}); check the labels of --data"
        )


def _agreement(output: np.ndarray, reference: np.ndarray, labels: np.ndarray | None) -> Scores:
    """Share of positions whose strongest channel (axis 1) is the original's."""
    del labels
    if output.ndim < 2:
        raise UsageError("agreement needs outputs with a class axis; choose --metric cosine")
    same = output.argmax(axis=1) == reference.argmax(axis=1)
    return np.asarray(same.reshape(len(output), -1).mean(axis=1), dtype=np.float64)


def _cosine(output: np.ndarray, reference: np.ndarray, labels: np.ndarray | None) -> Scores:
    del labels
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (output, reference))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.where(norms > 0, norms, 1.0), dtype=np.float64)


def _psnr(output: np.ndarray, reference: np.ndarray, labels: np.ndarray | None) -> Scores:
    """Decibels against the labels, which are images in 0..1 of the output's shape."""
    del reference
    assert labels is not None
    if labels.shape != output.shape:
        raise DataError(
            f"psnr compares with labels of the output's shape {output.shape[1:]}, "
            f"got {labels.shape[1:]}; give such labels, or choose another --metric"
        )
    square = np.square(np.asarray(output, np.float64) - labels).reshape(len(output), -1)
    return np.asarray(-10 * np.log10(np.maximum(square.mean(axis=1), 1e-12)), dtype=np.float64)


METRICS = {
    "top1": Metric("top1", True, _top(1)),
    "top5": Metric("top5", True, _top(5)),
    "agreement": Metric("agreement", False, _agreement),
    "cosine": Metric("cosine", False, _cosine),
    "psnr": Metric("psnr", True, _psnr),
}


def choose_metric(name: str | None, samples: Samples) -> Metric:
    """The named metric; without a name top1 where there are classes, else agreement.

    Raises:
        UsageError: unknown, or it needs labels that the samples lack.
    """
    labels = samples.labels
    if name is None:
        if labels is None:
            return METRICS["agreement"]
        return METRICS["top1" if _are_classes(labels) else "psnr"]
    if name not in METRICS:
        raise UsageError(f"--metric {name}: unknown; choose one of {', '.join(METRICS)}")
    if METRICS[name].needs_labels and labels is None:
        raise UsageError(
            f"--metric {name}: needs labels, and {samples.source} has none; add them, or choose "
            "agreement or cosine"
        )
    return METRICS[name]


class Evaluation:
    """Scores models on the same samples; the original's outputs and scores are kept."""

    def __init__(
        self,
        original: Outputs,
        samples: Samples,
        metric: Metric,
        batching: Batching,
        progress: Progress = silent,
    ) -> None:
        self.metric = metric.name
        self._samples, self._metric, self._batching = samples, metric, batching
        self._progress = progress
        self._reference = list(self._outputs(original))
        self.before = self._scores(self._reference)

    def measure(self, candidate: Outputs) -> Accuracy:
        """The candidate's metric and its drop against the original's."""
        outputs = list(self._outputs(candidate))
        found = compare(self._metric.name, self.before, self._scores(outputs))
        return replace(found, change=squared_change(self._reference, outputs))

    def _outputs(self, runner: Outputs) -> Iterator[np.ndarray]:
        """The first output, batch by batch."""
        size, total = self._batching.size, len(self._samples)
        self._progress("evaluate samples", 0, total)
        for number, output in enumerate(self._first(runner), 1):
            self._progress("evaluate samples", min(number * size, total), total)
            yield output

    def _first(self, runner: Outputs) -> Iterator[np.ndarray]:
        if isinstance(runner, Everywhere):
            return runner.first_outputs(self._samples, self._batching)
        batches = self._samples.batches(self._batching.size)
        return (self._batching.run(runner, feeds)[0] for feeds in batches)

    def _scores(self, outputs: Sequence[np.ndarray]) -> Scores:
        parts, start = [], 0
        for output, reference in zip(outputs, self._reference, strict=True):
            labels = self._samples.labels
            part = None if labels is None else labels[start : start + len(output)]
            parts.append(self._metric.score(output, reference, part))
            start += len(output)
        return np.concatenate(parts)


def squared_change(reference: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> float:
    """‖outputs − reference‖² / ‖reference‖²; infinite where it is not finite."""
    moved = size = 0.0
    for a, b in zip(reference, outputs, strict=True):
        moved += float(np.square(np.asarray(a, np.float64) - b).sum())
        size += float(np.square(a, dtype=np.float64).sum())
    change = moved / size if size else (0.0 if moved == 0 else np.inf)
    return float(change) if np.isfinite(change) else float("inf")


def compare(metric: str, before: Scores, after: Scores) -> Accuracy:
    """Means and the paired drop of two score lists over the same samples."""
    low, high = drop_interval(before, after)
    mean_before, mean_after = float(before.mean()), float(after.mean())
    drop = mean_before - mean_after
    return Accuracy(metric, mean_before, mean_after, drop, (low, high), len(before))


def drop_interval(before: Scores, after: Scores) -> tuple[float, float]:
    """95 % interval of the mean paired difference.

    For scores of 0 and 1 half a sample is added to each of the four outcomes, which keeps
    the interval honest where few samples change (Agresti & Min, Statistics in Medicine 24,
    2005); else the normal interval of the mean.
    """
    difference = before - after
    count = len(difference)
    if np.isin(before, (0, 1)).all() and np.isin(after, (0, 1)).all():
        lost = float((difference > 0).sum()) + 0.5
        won = float((difference < 0).sum()) + 0.5
        count += 2
        middle = (lost - won) / count
        spread = math.sqrt(max((lost + won) / count - middle**2, 0.0) / count)
    else:
        middle = float(difference.mean())
        spread = float(difference.std(ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    return middle - Z95 * spread, middle + Z95 * spread
