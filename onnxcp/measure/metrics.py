"""Metrics: what a budget is stated in.

A metric of `metric_table` gives one number per fed sample and output. Arrays are as `by_sample`
makes them: [samples, classes or channels, positions…], at least two axes. Where a metric judges
several outputs, the worst of them is the sample's score. A metric that is a function of the whole
evaluation set gives one number for all outputs and samples.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from onnxcp.arrays import Float64
from onnxcp.errors import DataError
from onnxcp.graph.input_specs import Shape

Scores = Float64[np.ndarray, " samples"]
Labels = np.ndarray | None
BySample = Callable[[np.ndarray, np.ndarray, Labels], Scores]
Named = Mapping[str, np.ndarray | list[np.ndarray]]  # by output, samples first
WholeSet = Callable[[Named, Labels], float]

MAX_SNR = 100.0  # dB: an error below 1e-5 of the output counts as none
CLEAR_DROP = 0.5  # of a metric from 0 to 1: a larger budget was meant in percent


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of `METRICS`: `score(output, reference, labels)` gives a number per sample.

    `output` and `reference` are what the candidate and the original give for the same samples.
    `blind(shape)` says why the metric cannot differ on outputs whose samples have this shape,
    or None. `is_share` says that it lies between 0 and 1. `function` is called in place of
    `score` with all outputs of the whole evaluation set by name.
    """

    name: str
    score: BySample | None = None
    needs_labels: bool = False
    higher_is_better: bool = True
    is_share: bool = False
    blind: Callable[[Shape], str | None] | None = None
    default_limit: str = "0.01"  # of the drop
    function: WholeSet | None = None
    is_hit: bool = False  # a sample is right or wrong, 1 or 0

    @property
    def drop_name(self) -> str:
        """What a budget bounds: "top1 drop", or "mae rise" where lower is better."""
        return f"{self.name} {'drop' if self.higher_is_better else 'rise'}"


def _flat(array: np.ndarray) -> Float64[np.ndarray, "samples values"]:
    return np.asarray(array, np.float64).reshape(len(array), -1)


def _finite(output: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Samples in which both are finite throughout."""
    good: np.ndarray = np.isfinite(_flat(output)).all(1) & np.isfinite(_flat(reference)).all(1)
    return good


def class_scores(shape: Shape) -> bool:
    """Whether a sample's output of this shape is scores of two or more classes."""
    return shape[0] > 1 and math.prod(shape[1:]) == 1


def _top(k: int) -> BySample:
    def score(output: np.ndarray, reference: np.ndarray, labels: Labels) -> Scores:
        del reference
        assert labels is not None
        scores = output.reshape(len(output), -1)
        check_labels(labels, scores.shape[1])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        hit = (best == labels.reshape(-1, 1)).any(axis=1) & ~np.isnan(scores).any(axis=1)
        found: Scores = hit.astype(np.float64)
        return found

    return score


def _blind_top(k: int) -> Callable[[Shape], str | None]:
    return lambda shape: f"has {shape[0]} classes" if shape[0] <= k else None


def are_classes(labels: np.ndarray) -> bool:
    """One whole number a sample."""
    return labels.dtype.kind in "iu" and labels.size == len(labels)


def check_labels(labels: np.ndarray, classes: int) -> None:
    """Raises DataError for labels that are no numbers of these classes."""
    if not are_classes(labels):
        raise DataError(
            f"top-k needs one class number a sample, the labels are {labels.dtype} of shape "
            f"{labels.shape}; convert the labels of <<data>>"
        )
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise DataError(
            f"label {wrong.flat[0]} is out of range: the model has {classes} classes "
            f"(0..{classes - 1}); check the labels of <<data>>"
        )


def _agreement(output: np.ndarray, reference: np.ndarray, labels: Labels) -> Scores:
    """Share of positions whose strongest channel (axis 1) is the original's; NaN agrees with
    nothing."""
    del labels
    same = output.argmax(axis=1) == reference.argmax(axis=1)
    same &= ~(np.isnan(output).any(axis=1) | np.isnan(reference).any(axis=1))
    return np.asarray(same.reshape(len(output), -1).mean(axis=1), dtype=np.float64)


def _blind_agreement(shape: Shape) -> str | None:
    return "has one column" if shape[0] < 2 else None


def _cosine(output: np.ndarray, reference: np.ndarray, labels: Labels) -> Scores:
    """Of zero with zero 1, of zero with anything else 0, as of what is not finite."""
    del labels
    with np.errstate(invalid="ignore", over="ignore"):
        a, b = _flat(output), _flat(reference)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosine = (a * b).sum(axis=1) / np.where(norms > 0, norms, 1.0)
        both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    return np.where(_finite(output, reference), np.where(both_zero, 1.0, cosine), 0.0)


def _blind_cosine(shape: Shape) -> str | None:
    return "is one number a sample" if math.prod(shape) < 2 else None


def _relative_error(output: np.ndarray, reference: np.ndarray, labels: Labels) -> Scores:
    """‖output − reference‖ / ‖reference‖; a change of nothing at all counts as 1, NaN as
    infinite."""
    del labels
    with np.errstate(invalid="ignore", over="ignore"):
        b = _flat(reference)
        moved = np.linalg.norm(_flat(output) - b, axis=1)
        size = np.linalg.norm(b, axis=1)
    ratio = np.where(size > 0, moved / np.where(size > 0, size, 1.0), moved > 0)
    return np.where(_finite(output, reference), ratio, np.inf)


def _snr(output: np.ndarray, reference: np.ndarray, labels: Labels) -> Scores:
    """20·log10(‖reference‖ / ‖output − reference‖) decibels, at most `MAX_SNR`."""
    error = _relative_error(output, reference, labels)
    return np.asarray(-20 * np.log10(np.maximum(error, 10 ** (-MAX_SNR / 20))), np.float64)


def _absolute(average: Callable[..., np.ndarray]) -> BySample:
    def score(output: np.ndarray, reference: np.ndarray, labels: Labels) -> Scores:
        del labels
        with np.errstate(invalid="ignore", over="ignore"):
            errors = average(np.abs(_flat(output) - _flat(reference)), axis=1)
        return np.where(_finite(output, reference), errors, np.inf)

    return score


def _psnr(output: np.ndarray, reference: np.ndarray, labels: Labels) -> Scores:
    """Decibels against the labels, which are images in 0..1 of the output's shape."""
    del reference
    assert labels is not None
    if labels.shape != output.shape:
        raise DataError(
            f"psnr compares with labels of the output's shape {output.shape[1:]}, "
            f"got {labels.shape[1:]}; give such labels, or choose another <<metric>>"
        )
    square = np.square(_flat(output) - _flat(labels)).mean(axis=1)
    return np.asarray(-10 * np.log10(np.maximum(np.nan_to_num(square, nan=np.inf), 1e-12)))


TOP1 = Metric("top1", _top(1), needs_labels=True, is_share=True, blind=_blind_top(1), is_hit=True)
TOP5 = Metric("top5", _top(5), needs_labels=True, is_share=True, blind=_blind_top(5), is_hit=True)
AGREEMENT = Metric("agreement", _agreement, is_share=True, blind=_blind_agreement, is_hit=True)
COSINE = Metric("cosine", _cosine, is_share=True, blind=_blind_cosine)
PSNR = Metric("psnr", _psnr, needs_labels=True)
SNR = Metric("snr", _snr)
RELATIVE_ERROR = Metric(
    "relative-error",
    _relative_error,
    higher_is_better=False,
    is_share=True,
    default_limit="0.05",
)
MAX_ERROR = Metric("max-error", _absolute(np.max), higher_is_better=False)
MAE = Metric("mae", _absolute(np.mean), higher_is_better=False)
