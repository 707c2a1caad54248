"""The measured loss as a function of the predicted loss: a power law fitted to measurements.

Predicted losses L of sites add up, but not in the unit of the measured loss, and real losses add
up only roughly. Near one limit, a·Lᵇ is accurate enough. A single measurement already gives a
curve, because b is expected near 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxcp.plan import Score

PRIOR_EXPONENT, PRIOR_DEVIATION = 1.0, 0.3  # of b: mean and standard deviation before measuring
EXPONENTS = np.linspace(0.5, 2.0, 61)
LAW_ERROR = 0.1  # relative error of the law at e times the limit: a heuristic
LAW_ERROR_AT_LIMIT = 0.2  # of that, at the limit itself
MAX_LIMITS = 100.0  # limits: a larger loss counts as this
SIGNIFICANT = 2.0  # standard errors: a smaller loss counts as noise
TINY = 1e-12  # keeps divisors from zero


@dataclass(frozen=True, slots=True)
class Point:
    """The predicted and the measured loss of a plan."""

    predicted: float
    loss: float
    spread: float  # standard error of the loss


@dataclass(frozen=True, slots=True)
class Curve:
    """loss = scale · predicted ** exponent.

    `relative_error` is the relative standard error of the scale, from the noise of measurements.
    """

    scale: float
    exponent: float
    relative_error: float

    def upper(self, predicted: float) -> float:
        """The loss plus its standard error."""
        return (1 + self.relative_error) * self.scale * math.pow(predicted, self.exponent)

    def predicted(self, loss: float) -> float:
        """The predicted loss whose `upper` is `loss`; infinite if there is none."""
        if self.scale <= 0:
            return math.inf
        return math.pow(loss / self.scale / (1 + self.relative_error), 1 / self.exponent)


@dataclass(frozen=True, slots=True)
class LossPerChange:
    """The loss per unit of relative output change, and its relative standard error."""

    scale: float
    relative_error: float


def pooled(scores: Sequence[Score]) -> LossPerChange | None:
    """The loss per unit of output change over all scores together.

    The change of outputs is measured far more precisely than the loss. None if losses have no
    noise, or are not significant.
    """
    change, loss = math.fsum(s.change for s in scores), math.fsum(s.loss for s in scores)
    noise = math.hypot(*(score.spread for score in scores))
    if not math.isfinite(change) or not 0 < SIGNIFICANT * noise < loss:
        return None
    return LossPerChange(loss / change, noise / loss)


def fit(points: Sequence[Point], limit: float) -> Curve:
    """The most probable curve through the points, by weighted least squares.

    A point's variance is that of its measurement plus that of the law, whose error grows with the
    distance of the loss from the limit. For each exponent of a grid, the scale has a closed form.
    """
    limit = max(limit, TINY)
    x, y, spread = np.array([(p.predicted, p.loss, p.spread) for p in points], np.float64).T
    y = np.minimum(y, MAX_LIMITS * limit)
    distance = np.abs(np.log(np.maximum(y / limit, 1 / MAX_LIMITS)))
    law = np.maximum(y, limit) * LAW_ERROR * (LAW_ERROR_AT_LIMIT + distance)
    weight = 1 / (np.square(spread) + np.square(law))
    powers = x ** EXPONENTS[:, None]
    squares = np.maximum(np.square(powers) @ weight, TINY)
    scales = np.maximum(powers @ (weight * y), 0) / squares
    misfit = np.square(y - scales[:, None] * powers) @ weight
    best = int((misfit + np.square((EXPONENTS - PRIOR_EXPONENT) / PRIOR_DEVIATION)).argmin())
    scale = float(scales[best])
    error = np.linalg.norm(powers[best] * weight * spread) / squares[best]
    return Curve(scale, float(EXPONENTS[best]), float(error) / scale if scale > 0 else 0.0)
