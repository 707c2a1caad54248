"""Whether two models' outputs are equal, and if not, where and by how much they differ.

Two questions are separate everywhere: whether the surgery is right (the rewritten model and the
original with reconstructed kernels are equal up to rounding), and how good the approximation is
(judged by a budget on data).
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxcp.graph.input_specs import Feeds
from onnxcp.options.tolerance import STATS, TOP_K
from onnxcp.verification.output_stats import Batch, Place, Tally

Outputs = Callable[[Feeds], Sequence[np.ndarray]]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Limits on the error, as in Polygraphy.

    Elementwise: |candidate − reference| ≤ atol + rtol · |reference|. By statistic: the max, mean or
    median of the absolute error ≤ atol, or of the relative error ≤ rtol.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    stat: str = "elemwise"


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of one output over all samples.

    `shape` is that of one sample, or of the whole output if it has no batch. `snr_db` is
    10·log10(‖reference‖² / ‖error‖²), infinite for equal outputs. `top_1` and `top_k` are the
    shares of samples (and positions) where both have the same largest channels. If shapes differ,
    only `failure` is set.
    """

    output: str
    shape: tuple[int, ...]
    relative_l2: float
    snr_db: float
    cosine: float
    max_abs: float
    mean_abs: float
    median_abs: float
    worst: Place | None
    top_1: float | None
    top_k: float | None
    failure: str | None  # why this output fails, or None

    @property
    def ok(self) -> bool:
        return self.failure is None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The differences of all outputs of two models."""

    outputs: tuple[Difference, ...]
    samples: int

    @property
    def ok(self) -> bool:
        return all(o.ok for o in self.outputs)

    @property
    def relative_l2(self) -> float:
        """The relative L2 error of the output that differs most."""
        return max((o.relative_l2 for o in self.outputs), default=0.0)


def compare(
    reference: Outputs,
    candidate: Outputs,
    names: Sequence[str],
    feeds: Iterable[Feeds],
    *,
    tolerance: Tolerance | Mapping[str, Tolerance] | None = None,
    most_l2: float | None = None,
    bounded: Collection[str] = (),
    top_k: int = TOP_K,
    numbers: Sequence[int] | None = None,
) -> Verdict:
    """Run both models on the same feeds and compare every output.

    NaN, infinity, and different shapes or dtypes always fail. `tolerance` applies elementwise or
    to a statistic, to all outputs or by output name. `most_l2` limits the relative L2 error; for
    outputs in `bounded`, whose values are within [−1, 1], it is relative to a norm of at least 1.
    `numbers` are the numbers of the samples in their source, by default counted from 0.
    """
    rules = [tolerance.get(n) if isinstance(tolerance, Mapping) else tolerance for n in names]
    outputs = [_Output(name, rule, top_k) for name, rule in zip(names, rules, strict=True)]
    done = 0
    for fed in feeds:
        count = batch_of(fed)
        these = range(done, done + count) if numbers is None else numbers[done : done + count]
        old, new = reference(fed), candidate(fed)
        for position, output in enumerate(outputs):
            output.add(np.asarray(old[position]), np.asarray(new[position]), Batch(these))
        done += count
    found = (o.difference(most_l2, 1.0 if o.name in bounded else 0.0) for o in outputs)
    return Verdict(tuple(found), done)


def batch_of(feeds: Feeds) -> int:
    """How many samples feeds hold: the first size of all inputs; 1 if they differ in it."""
    sizes = {array.shape[0] for array in feeds.values() if array.ndim}
    return sizes.pop() if len(sizes) == 1 else 1


class _Output:
    """The statistics of one output, until its shapes or dtypes differ."""

    def __init__(self, name: str, rule: Tolerance | None, top_k: int) -> None:
        self.name, self._rule, self._top_k = name, rule, top_k
        self._tally = Tally(rule.rtol, rule.atol, top_k) if rule else Tally(top_k=top_k)
        self._shape: tuple[int, ...] | None = None
        self._unlike: str | None = None

    def add(self, a: np.ndarray, b: np.ndarray, batch: Batch) -> None:
        if self._shape is None:
            self._shape = a.shape[batch.is_first(a.shape) :]
        self._unlike = self._unlike or _unlike(a, b)
        if self._unlike is None:
            with np.errstate(invalid="ignore", over="ignore"):
                self._tally.add(a, b, batch)

    def difference(self, most_l2: float | None, least_norm: float) -> Difference:
        shape, tally = self._shape or (), self._tally
        if self._unlike is not None or not tally.held:
            nan = float("nan") if self._unlike else 0.0
            return Difference(
                self.name, shape, nan, nan, nan, nan, nan, nan, None, None, None, self._unlike
            )
        median, relative = tally.medians()
        most = 0.0 if tally.worst is None else abs(tally.worst.reference - tally.worst.candidate)
        values = max(1, tally.values)
        errors = {
            "max": (most, tally.most_relative),
            "mean": (tally.absolute / values, tally.relative / values),
            "median": (median, relative),
        }
        l2 = _relative_l2(tally, least_norm)
        return Difference(
            output=self.name,
            shape=shape,
            relative_l2=l2,
            snr_db=math.inf if l2 == 0 else -20 * math.log10(l2),
            cosine=_cosine(tally),
            max_abs=most,
            mean_abs=errors["mean"][0],
            median_abs=median,
            worst=tally.worst,
            top_1=tally.agreement(1),
            top_k=tally.agreement(self._top_k),
            failure=_not_finite(tally) or _beyond(tally, l2, most_l2, self._rule, errors),
        )


def _unlike(a: np.ndarray, b: np.ndarray) -> str | None:
    if a.dtype != b.dtype:
        return f"the reference gives {a.dtype}, the candidate {b.dtype}"
    if a.ndim != b.ndim:
        return f"the reference gives {a.ndim} dimensions, the candidate {b.ndim}"
    return None if a.shape == b.shape else f"shapes differ: {a.shape} and {b.shape}"


def _relative_l2(tally: Tally, least_norm: float) -> float:
    norm = max(math.sqrt(tally.reference), least_norm)
    if norm > 0:
        return math.sqrt(tally.error) / norm
    return 0.0 if tally.error == 0 else math.inf


def _cosine(tally: Tally) -> float:
    """The cosine similarity; 1 for two zeros, 0 if only one side is zero."""
    sizes = math.sqrt(tally.reference) * math.sqrt(tally.candidate)
    if sizes > 0:
        return tally.dot / sizes
    return float(tally.reference == tally.candidate)


def _not_finite(tally: Tally) -> str | None:
    """The failure for NaN and infinity: how many, on which side, and where the first is."""
    sides = [
        f"{count} of {tally.elements} values of the {who}"
        for who, count in tally.wrong.items()
        if count
    ]
    if not sides:
        return None
    return f"{' and '.join(sides)} are NaN or infinite, the first at {tally.first_wrong}"


def _beyond(
    tally: Tally,
    l2: float,
    most_l2: float | None,
    rule: Tolerance | None,
    errors: Mapping[str, tuple[float, float]],
) -> str | None:
    if most_l2 is not None and not l2 <= most_l2:
        return f"relative L2 error {l2:.2g} exceeds {most_l2:.2g}"
    if rule is None:
        return None
    limits = f"rtol {rule.rtol:g}, atol {rule.atol:g}"
    if rule.stat == STATS[0]:
        if not tally.beyond:
            return None
        beyond = f"{tally.beyond} of {tally.values} values are beyond {limits}"
        return f"{beyond}; the largest error: {tally.worst}"
    absolute, ratio = errors[rule.stat]
    if absolute <= rule.atol or ratio <= rule.rtol:
        return None
    return f"{rule.stat} error {absolute:.3g} (relative {ratio:.3g}) is beyond {limits}"
