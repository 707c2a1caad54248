"""How the measured loss grows with the predicted one: a power law through noisy measurements.

Predicted losses add up, but in a unit of their own, and networks do not quite add up; around
one limit a·Lᵇ is enough. One measurement already gives a curve, because b is expected near 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxcp.plan import Score

EXPONENT, SURE = 1.0, 0.3  # b and its standard deviation before anything is measured
EXPONENTS = np.linspace(0.5, 2.0, 61)
MODEL = 0.1  # what the law may be wrong by, relative, at e times the limit: a heuristic
NEAR = 0.2  # of that, at the limit itself
FURTHEST = 100.0  # times the limit: a loss beyond is taken for this
CLEAR = 2.0  # standard errors: a loss that is no more is taken for noise
TINY = 1e-12  # keeps divisors from zero


@dataclass(frozen=True, slots=True)
class Point:
    """A plan that was measured."""

    predicted: float
    loss: float
    spread: float  # standard error of the loss


@dataclass(frozen=True, slots=True)
class Curve:
    """loss = scale · predicted ** exponent. `doubt` is the standard error that noise gives
    the scale, relative."""

    scale: float
    exponent: float
    doubt: float

    def cautious(self, predicted: float) -> float:
        """The loss, and its standard error on top."""
        return (1 + self.doubt) * self.scale * math.pow(predicted, self.exponent)

    def predicted(self, loss: float) -> float:
        """Where the cautious loss is so much; infinite where it never is."""
        if self.scale <= 0:
            return math.inf
        return math.pow(loss / self.scale / (1 + self.doubt), 1 / self.exponent)


@dataclass(frozen=True, slots=True)
class Price:
    """What a unit of change costs in loss, and the standard error of that, relative."""

    scale: float
    doubt: float


def pooled(scores: Sequence[Score]) -> Price | None:
    """The price that all scores give together: how far outputs moved is known far better than
    how many right answers that cost. None where losses have no noise, or are lost in it."""
    moved, lost = math.fsum(s.change for s in scores), math.fsum(s.loss for s in scores)
    noise = math.hypot(*(score.spread for score in scores))
    if not math.isfinite(moved) or not 0 < CLEAR * noise < lost:
        return None
    return Price(lost / moved, noise / lost)


def fit(points: Sequence[Point], limit: float) -> Curve:
    """The most probable curve through the points, by weighted least squares.

    A point's standard deviation is its own and that of the law, which holds the less the
    further a loss is from the limit. For every exponent of a grid the scale has a closed form.
    """
    limit = max(limit, TINY)
    x, y, spread = np.array([(p.predicted, p.loss, p.spread) for p in points], np.float64).T
    y = np.minimum(y, FURTHEST * limit)
    away = np.abs(np.log(np.maximum(y / limit, 1 / FURTHEST)))
    law = np.maximum(y, limit) * MODEL * (NEAR + away)
    weight = 1 / (np.square(spread) + np.square(law))
    powers = x ** EXPONENTS[:, None]
    squares = np.maximum(np.square(powers) @ weight, TINY)
    scales = np.maximum(powers @ (weight * y), 0) / squares
    misfit = np.square(y - scales[:, None] * powers) @ weight
    best = int((misfit + np.square((EXPONENTS - EXPONENT) / SURE)).argmin())
    scale = float(scales[best])
    error = np.linalg.norm(powers[best] * weight * spread) / squares[best]
    return Curve(scale, float(EXPONENTS[best]), float(error) / scale if scale > 0 else 0.0)
