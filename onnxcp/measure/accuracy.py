"""The metric of a budget, its drop, and the drop's confidence interval.

The drop is how much worse the metric becomes: the mean of paired differences on the same samples.
Pairing removes the variation between hard and easy samples. A metric of the whole evaluation set
has no score per sample; its interval comes from bootstrap samples.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from onnxcp.arrays import Float64
from onnxcp.data.samples import Batching, Samples
from onnxcp.errors import DataError
from onnxcp.measure.by_sample import Layout, Outputs, lay_out
from onnxcp.measure.metric_choice import Choice, choose
from onnxcp.measure.metrics import Labels, Metric, Named, Scores
from onnxcp.measure.set_metrics import drawn, joined, value
from onnxcp.progress import Progress, silent
from onnxcp.results import OutputRecord

Batches = Sequence[Sequence[np.ndarray]]  # by batch and output

MIDDLE = 0.95  # of a distribution, that its interval holds
Z95 = 1.959964  # two-sided 95 % quantile of the normal distribution


@runtime_checkable
class Everywhere(Protocol):
    """A runner that takes all batches at once, such as that of a cluster."""

    def all_outputs(self, samples: Samples, batching: Batching) -> Iterator[list[np.ndarray]]:
        """The model's outputs, batch by batch."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A metric before and after, and the drop with its 95 % interval, absolute.

    `change` is the squared relative change of the output that changed most. The score of a sample
    is that of its worst output.
    """

    metric: str
    before: float
    after: float
    drop: float
    drop_ci: tuple[float, float]
    samples: int
    change: float = 0.0
    outputs: tuple[OutputRecord, ...] = ()


class Evaluation:
    """Scores models on the same samples; keeps the original's outputs and scores.

    Raises:
        UsageError: the metric cannot differ on the model's outputs, or needs labels.
    """

    def __init__(
        self,
        original: Outputs,
        samples: Samples,
        metric: str | Metric | None,
        layout: Layout | Batching,
        progress: Progress = silent,
        only: Sequence[str] = (),
    ) -> None:
        self._samples, self._progress = samples, progress
        self.layout = lay_out(original, samples, layout) if isinstance(layout, Batching) else layout
        shapes = dict(zip(self.layout.names, self.layout.shapes, strict=True))
        self.choice = choose(metric, shapes, samples.labels, samples.source, only)
        self._reference, self._whole = self._run(original)
        self._drawn: np.ndarray | None = None  # the original's scores on samples drawn anew
        self._before = self._judged(self._reference, self._whole)

    @property
    def metric(self) -> Metric:
        return self.choice.metric

    @property
    def before(self) -> float:
        """The score of the original."""
        return self._before.value

    @property
    def labels(self) -> Labels:
        return self._samples.labels

    def measure(self, candidate: Outputs, *, interval: bool = True) -> Accuracy:
        """The candidate's metric and its drop against the original's. Without an `interval` none
        is computed for a metric of the whole set, and the one returned is infinite."""
        outputs, whole = self._run(candidate)
        self._refuse_unlike(outputs)
        after, sign = self._judged(outputs, whole), self._sign
        changes = changed(self._reference, outputs)
        if self._before.scores is not None and after.scores is not None:
            pair = (self._before.scores, after.scores)
            drop_ci = drop_interval(*pair, sign, hits=self.metric.is_hit)
        else:
            drop_ci = self._drawn_interval(whole) if interval else (-math.inf, math.inf)
        return Accuracy(
            self.metric.name,
            self.before,
            after.value,
            sign * (self.before - after.value),
            drop_ci,
            len(self._samples),
            max(changes),
            self._rows(after.means, changes),
        )

    @property
    def _sign(self) -> float:
        return 1.0 if self.metric.higher_is_better else -1.0

    def _run(self, runner: Outputs) -> tuple[Batches, Named]:
        """The judged outputs by batch; and all outputs as a metric of the whole set takes them,
        where it is one."""
        if self.metric.function is None:
            return [self.layout.arranged(given) for given in self._given(runner)], {}
        given, alone = list(self._given(runner)), self.layout.batching.alone
        named = {
            name: joined([batch[place] for batch in given], alone=alone)
            for place, name in enumerate(self.layout.given)
        }
        return [self.layout.arranged(batch) for batch in given], named

    def _judged(self, outputs: Batches, whole: Named) -> "_Judged":
        if self.metric.function is None:
            return _by_sample(self.choice, outputs, self._reference, self.labels)
        return _Judged(value(self.metric, whole, self.labels), None, {})

    def _drawn_interval(self, whole: Named) -> tuple[float, float]:
        if self._drawn is None:
            self._drawn = drawn(self.metric, self._whole, self.labels)
        new = drawn(self.metric, whole, self.labels)
        return drawn_interval(self._sign * (self._drawn - new))

    def _rows(
        self, means: Mapping[int, float], changes: Sequence[float]
    ) -> tuple[OutputRecord, ...]:
        return tuple(
            OutputRecord(name, means.get(place), math.sqrt(changes[place]))
            for place, name in enumerate(self.layout.names)
        )

    def _given(self, runner: Outputs) -> Iterator[list[np.ndarray]]:
        """All outputs, batch by batch."""
        size, total = self.layout.batching.step, len(self._samples)
        self._progress("evaluate samples", 0, total)
        for number, output in enumerate(self._batches(runner), 1):
            self._progress("evaluate samples", min(number * size, total), total)
            yield output

    def _batches(self, runner: Outputs) -> Iterator[list[np.ndarray]]:
        batching = self.layout.batching
        if isinstance(runner, Everywhere):
            return runner.all_outputs(self._samples, batching)
        return (batching.run(runner, feeds) for feeds in self._samples.batches(batching.step))

    def _refuse_unlike(self, outputs: Batches) -> None:
        for old, new in zip(self._reference, outputs, strict=True):
            for name, a, b in zip(self.layout.names, old, new, strict=True):
                if a.shape != b.shape:
                    raise DataError(
                        f"output {name!r}: the original gives {a.shape[1:]} for a sample, the "
                        f"other model {b.shape[1:]}; compare models that give the same shapes"
                    )


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """The scores of one model by sample, and the means by position of the output.

    A metric of the whole evaluation set has neither.
    """

    value: float
    scores: Scores | None
    means: Mapping[int, float]


def _by_sample(choice: Choice, outputs: Batches, reference: Batches, labels: Labels) -> _Judged:
    """Scores by sample, each that of the sample's worst output."""
    score, parts, start = choice.metric.score, list[dict[int, Scores]](), 0
    assert score is not None
    for new, old in zip(outputs, reference, strict=True):
        stop = start + len(new[choice.places[0]])
        some = None if labels is None else labels[start:stop]
        parts.append({place: score(new[place], old[place], some) for place in choice.places})
        start = stop
    by_place = {place: np.concatenate([part[place] for part in parts]) for place in choice.places}
    worst = np.min if choice.metric.higher_is_better else np.max
    scores: Scores = worst(np.stack(list(by_place.values())), axis=0)
    means = {place: float(some.mean()) for place, some in by_place.items()}
    return _Judged(float(scores.mean()), scores, means)


def changed(reference: Batches, outputs: Batches) -> list[float]:
    """‖output − reference‖² / ‖reference‖² of every output over all samples.

    Infinite if it is not finite, or shapes differ.
    """
    places = range(len(reference[0]))
    return [squared_change([b[p] for b in reference], [b[p] for b in outputs]) for p in places]


def squared_change(reference: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> float:
    """‖outputs − reference‖² / ‖reference‖²; infinite if it is not finite."""
    moved = size = 0.0
    for a, b in zip(reference, outputs, strict=True):
        if a.shape != b.shape:
            return math.inf
        with np.errstate(invalid="ignore", over="ignore"):
            moved += float(np.square(np.asarray(a, np.float64) - b).sum())
            size += float(np.square(a, dtype=np.float64).sum())
    change = moved / size if size else (0.0 if moved == 0 else np.inf)
    return float(change) if np.isfinite(change) else float("inf")


def drop_interval(
    before: Scores, after: Scores, sign: float = 1.0, *, hits: bool = True
) -> tuple[float, float]:
    """The 95 % interval of the mean paired difference; `sign` is −1 if lower scores are better.

    For `hits`, scores of 0 and 1, half a sample is added to each of the four outcomes, which keeps
    the coverage if few samples change (Agresti & Min, Statistics in Medicine 24, 2005). Else it is
    Student's interval of the mean, which is wide for few samples.
    """
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return -math.inf, math.inf
    difference = sign * (before - after)
    count = len(difference)
    if hits and np.isin(before, (0, 1)).all() and np.isin(after, (0, 1)).all():
        lost = float((difference > 0).sum()) + 0.5
        won = float((difference < 0).sum()) + 0.5
        count += 2
        middle = (lost - won) / count
        spread = math.sqrt(max((lost + won) / count - middle**2, 0.0) / count)
    else:
        middle = float(difference.mean())
        if count < 2:
            return -math.inf, math.inf
        spread = float(difference.std(ddof=1)) / math.sqrt(count)
        from scipy.special import stdtrit  # not needed to time a model

        spread *= float(stdtrit(count - 1, MIDDLE + (1 - MIDDLE) / 2)) / Z95
    return middle - Z95 * spread, middle + Z95 * spread


def drawn_interval(drops: Float64[np.ndarray, " draws"]) -> tuple[float, float]:
    """The middle 95 % of the drops on bootstrap samples (percentile bootstrap)."""
    if not drops.size or not np.isfinite(drops).all():
        return -math.inf, math.inf
    low, high = np.quantile(drops, (0.025, 0.975))
    return float(low), float(high)
