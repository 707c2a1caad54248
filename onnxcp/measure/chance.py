"""Whether an accuracy is better than guessing: intervals of shares, and the accuracy of a guess.

A guess names classes as often as the model does, independently of the sample. Always naming the
most frequent label would be right more often, but a useful model may be no better than that: if one
class dominates, or if the labels are a few of many classes.
"""

import math
from dataclasses import dataclass

import numpy as np

Z95 = 1.959964  # two-sided 95 % quantile of the normal distribution
MOST_BY_GUESS = 0.025  # one-sided probability of as many hits
WEAK = 1 / 3  # of the way from a guess to perfect: a model that may be of use
MOST_BY_LUCK, LEAST_GAIN = 1e-3, 0.1  # one-sided probability; share of the samples


@dataclass(frozen=True, slots=True)
class Standing:
    """The hits of a model among some samples, and the share of hits of a guess."""

    hits: int
    samples: int
    chance: float

    @property
    def share(self) -> float:
        return self.hits / self.samples

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share."""
        n, square = self.samples, Z95 * Z95
        middle = (self.share + square / (2 * n)) / (1 + square / n)
        inner = self.share * (1 - self.share) / n + square / (4 * n * n)
        half = float(Z95 * math.sqrt(inner) / (1 + square / n))
        low, high = max(0.0, middle - half), min(1.0, middle + half)
        return low, high

    @property
    def is_above(self) -> bool:
        """Whether it is clearly better than a guess: exact binomial test."""
        return self.hits > 0 and _tail(self.hits, self.samples, self.chance) <= MOST_BY_GUESS

    @property
    def is_good(self) -> bool:
        """Whether it is clearly better than a guess, and nearer to perfect than to one."""
        return self.is_above and self.share > (1 + self.chance) / 2

    @property
    def is_poor(self) -> bool:
        """Whether it is not clearly better than a guess, on samples enough to tell one that is
        a third of the way from a guess to perfect."""
        return not self.is_above and self.interval[1] < self.chance + (1 - self.chance) * WEAK


def _tail(hits: int, samples: int, share: float) -> float:
    """The probability of so many hits or more of a guess that is right about this share."""
    if not 0 < share < 1:
        return float(share >= 1)
    odds, logs = math.log(share), math.log1p(-share)
    whole = math.lgamma(samples + 1)
    return sum(
        math.exp(
            whole
            - math.lgamma(n + 1)
            - math.lgamma(samples - n + 1)
            + n * odds
            + (samples - n) * logs
        )
        for n in range(hits, samples + 1)
    )


def top(scores: np.ndarray, k: int) -> np.ndarray:
    """The k classes with the largest scores of every sample, [N, k]."""
    strongest: np.ndarray = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return strongest


def chance(
    strongest: np.ndarray, classes: int, labels: np.ndarray, *, alone: bool = False
) -> float:
    """The share of labels that a guess of as many classes is right about; `strongest` [N, k]
    are the model's. Where all labels are the same one, the guess names any class, or with `alone`
    that label as often as the model does, which is how often the model is right."""
    known, counts = np.unique(labels, return_counts=True)
    uniform: float = min(1.0, int(strongest.shape[1]) / classes)
    if len(known) == 1 and not alone:
        return uniform
    share = dict(zip(known.tolist(), (counts / counts.sum()).tolist(), strict=True))
    right = [sum(share.get(c, 0.0) for c in row) for row in strongest.tolist()]
    return max(uniform, float(sum(right) / len(right)))


def is_better(given: np.ndarray, other: np.ndarray) -> bool:
    """Whether others of the same samples are hits clearly more often: exact McNemar test."""
    won, lost = int((other & ~given).sum()), int((given & ~other).sum())
    if won - lost < LEAST_GAIN * len(given):
        return False
    tail = sum(math.comb(won + lost, n) for n in range(won, won + lost + 1))
    return bool(tail <= MOST_BY_LUCK * 2.0 ** (won + lost))


def entropy(classes: np.ndarray) -> float:
    """The entropy of the frequencies of classes, in nats."""
    shares = np.unique(classes, return_counts=True)[1] / len(classes)
    return float(-(shares * np.log(shares)).sum())
