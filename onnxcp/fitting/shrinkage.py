"""Shrinkage of covariances of few images towards the plain norm, by their uncertainty.

The covariance of a few images lacks directions that other images have: a fit in its norm is
unconstrained there, and would destroy what the model needs. Ledoit and Wolf mix it with a multiple
of the unit matrix, (1 − λ)·Σ + λ·μ·I with μ the mean variance, where λ is the variance of Σ over
its distance from μ·I. The independent samples are images here, not patches, since patches of one
image are similar. The variance of a single image's covariance is half the squared distance of two,
averaged over consecutive pairs.

Source: Ledoit & Wolf 2004, Journal of Multivariate Analysis 88(2):365.
"""

import numpy as np

from onnxcp.arrays import Float

MOST_PAIRS = 32  # of images: what they tell hardly changes with more
MOST_SHARE = 0.75  # of the unit matrix, as of one image, which shows no variance: a heuristic


class Scatter:
    """The variance of covariances of single images, for every group of a layer."""

    def __init__(self, groups: int) -> None:
        self._squares, self._pairs = np.zeros(groups), 0
        self._means, self._images = np.zeros(1), 0
        self._last: np.ndarray | None = None

    def add(self, images: Float[np.ndarray, "group images patches KS"]) -> None:
        """Add patches of the next images.

        Consecutive pairs are compared, about the mean of all images so far, so that the size of
        batches does not matter.
        """
        for rows in np.moveaxis(images, 1, 0):
            if self._pairs >= MOST_PAIRS:
                self._last = None
                return
            rows, last = np.ascontiguousarray(rows, dtype=np.float64), self._last
            self._means = self._means + rows.mean(axis=1, keepdims=True)
            self._images, self._last = self._images + 1, rows
            if last is not None:
                center = self._means / self._images
                with np.errstate(invalid="ignore", over="ignore"):
                    self._squares += _half_distance(last - center, rows - center)
                self._pairs += 1

    def share(self, group: int, images: int, covariance: Float[np.ndarray, "KS KS"]) -> float:
        """λ, from 0 to `MOST_SHARE`, for a group's covariance of this many images."""
        if not self._pairs:
            return MOST_SHARE
        size = len(covariance)
        with np.errstate(invalid="ignore", over="ignore"):
            squares = np.square(covariance, dtype=np.float64).sum()
            away = float(squares - float(np.trace(covariance)) ** 2 / size)
        variance = float(self._squares[group]) / self._pairs / images
        if not (np.isfinite(variance) and away > 0):
            return 0.0  # nothing to mix: round already, or not finite, which others refuse
        return min(MOST_SHARE, variance / away)


def shrunk(
    covariance: Float[np.ndarray, "KS KS"],
    share: float,
    like: Float[np.ndarray, "KS KS"] | None = None,
) -> Float[np.ndarray, "KS KS"]:
    """(1 − λ)·Σ + λ·μ·I, with the mean variance μ of Σ itself, or of `like`."""
    mean = float(np.trace(covariance if like is None else like)) / len(covariance)
    mixed: np.ndarray = covariance * covariance.dtype.type(1 - share)
    mixed[np.diag_indices_from(mixed)] += covariance.dtype.type(share * mean)
    return mixed


def _half_distance(
    one: Float[np.ndarray, "group P KS"], two: Float[np.ndarray, "group Q KS"]
) -> Float[np.ndarray, " group"]:
    """½‖A − B‖² for the mean products A and B of the patches of two images.

    Computed from inner or outer products, whichever are smaller.
    """
    one, two = (rows / np.sqrt(rows.shape[1]) for rows in (one, two))
    if max(one.shape[1], two.shape[1]) >= one.shape[2]:
        return _squares(one.swapaxes(1, 2) @ one - two.swapaxes(1, 2) @ two) / 2
    crosses = [a @ b.swapaxes(1, 2) for a, b in ((one, one), (two, two), (one, two))]
    own, other, both = map(_squares, crosses)
    return np.asarray((own + other) / 2 - both)


def _squares(matrices: np.ndarray) -> Float[np.ndarray, " group"]:
    squares: np.ndarray = np.square(matrices).sum(axis=(1, 2))
    return squares
