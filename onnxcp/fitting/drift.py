"""The joint statistics of a layer's inputs in the original and in a rewritten model."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from onnxcp.arrays import Float
from onnxcp.fitting.shrinkage import Scatter, shrunk
from onnxcp.fitting.statistics import patches
from onnxcp.graph.sites import Site


@dataclass(frozen=True, slots=True, eq=False)
class Drift:
    """The joint statistics of a site's inputs in the original and in a rewritten model.

    For every group: the covariance of the rewritten model's inputs [K·S, K·S], the covariance of
    original with rewritten, and the mean patches of both [group, K·S].
    """

    covariances: tuple[np.ndarray, ...]
    crosses: tuple[np.ndarray, ...]
    before: Float[np.ndarray, "group KS"]
    after: Float[np.ndarray, "group KS"]


def drift(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
    count: int,
    site: Site,
    *,
    correct_bias: bool = True,
    seed: int = 0,
) -> Drift:
    """The joint statistics of pairs of inputs (original, rewritten), batch by batch.

    `count` is the number of samples. Means stay zero if the bias cannot compensate for them.
    Covariances of few images are mixed with the unit matrix.
    """
    size, done = math.prod(site.part[1:]), 0
    sums = [np.zeros((size, size), np.float32) for _ in range(2 * site.group)]
    before, after = np.zeros((2, site.group, size))
    patched, scatter = 0, Scatter(site.group)
    for original, rewritten in pairs:
        one, two = (
            patches(site, values, np.random.default_rng((seed, done)), count)
            for values in (original, rewritten)
        )
        for number in range(site.group):
            sums[number] += two[number].T @ two[number]
            sums[site.group + number] += one[number].T @ two[number]
        before += one.sum(axis=1, dtype=np.float64)
        after += two.sum(axis=1, dtype=np.float64)
        if two.shape[1] % len(original) == 0:
            scatter.add(two.reshape(site.group, len(original), -1, size))
        done, patched = done + len(original), patched + one.shape[1]
    before, after = before / patched, after / patched
    for total in sums:
        total /= patched
    if correct_bias and not site.bias_computed:
        for number in range(site.group):
            sums[number] -= np.outer(after[number], after[number])
            sums[site.group + number] -= np.outer(before[number], after[number])
    else:
        before, after = np.zeros_like(before), np.zeros_like(after)
    for number in range(site.group):
        share, covariance = scatter.share(number, done, sums[number]), sums[number]
        sums[number] = shrunk(covariance, share)
        sums[site.group + number] = shrunk(sums[site.group + number], share, like=covariance)
    return Drift(tuple(sums[: site.group]), tuple(sums[site.group :]), before, after)
