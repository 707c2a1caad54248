"""Statistics of every site's inputs: mean and covariance of patches, from one calibration run.

A patch is the input of a window at one position, flattened position-major as in `forms.norm`.
Memory does not grow with the number of samples: every batch is added to sums and dropped. Images
have far more positions than a covariance needs, so that random positions are used.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.linalg.blas import ssyrk

from onnxcp.arrays import Float
from onnxcp.errors import DataError, UsageError
from onnxcp.fitting.shrinkage import Scatter, shrunk
from onnxcp.forms.solvers.norm import refuse_infinite
from onnxcp.graph.input_specs import Feeds
from onnxcp.graph.sites import Site
from onnxcp.options.fit import FitOptions
from onnxcp.progress import Progress, silent
from onnxcp.seeds import digits
from onnxcp.storage import atomic_write

PATCHES = 64  # per dimension of the covariance, where the data have as many
FEWEST = 64  # positions of an image, where it has as many
MEMORY = FitOptions().memory  # bytes for all covariances
ROUNDING = 1e-5  # of what squares sum up to: a variance below is that of single precision

Activations = Callable[[Feeds], Mapping[str, np.ndarray]]


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Statistics of the inputs of all sites with one kernel tensor.

    Files with a covariance per group, the hash of their content, and the mean patch [group, K·S]
    of every site whose bias can compensate for a change of it. The covariance is about the mean
    for these sites, about zero for others. With few images it is mixed with a multiple of the unit
    matrix, by a share per group.
    """

    covariances: tuple[Path, ...]
    sha256: str
    means: Mapping[str, Float[np.ndarray, "group KS"]]
    shares: tuple[float, ...] = ()


class _Sums:
    """Running sums of one site's patches and of their products."""

    def __init__(self, site: Site, *, whole: bool) -> None:
        self.site, self.whole, self.count, self.images = site, whole, 0, 0
        self._scatter = Scatter(site.group)
        size = math.prod(site.part[1:])
        self.mean = np.zeros((site.group, size))
        side = size if whole else site.part[1]
        self.products = [np.zeros((side, side), np.float32, order="F") for _ in range(site.group)]

    def add(self, patches: Float[np.ndarray, "group patches KS"], images: int) -> None:
        """Add patches of this many images, one image after the other."""
        self.count += patches.shape[1]
        self.images += images
        if patches.shape[1] % images == 0:
            width = patches.shape[2] if self.whole else self.site.part[1]
            self._scatter.add(patches.reshape(len(patches), images, -1, width))
        for number, rows in enumerate(patches):
            self.mean[number] += rows.sum(axis=0, dtype=np.float64)
            square = rows if self.whole else rows.reshape(-1, self.site.part[1])
            self.products[number] = ssyrk(
                1.0, square.T, beta=1.0, c=self.products[number], overwrite_c=1, lower=1
            )

    def share(self, number: int, covariance: np.ndarray) -> float:
        """The share of the unit matrix to mix with a group's covariance."""
        return self._scatter.share(number, self.images, covariance)

    def covariance(self, number: int, *, centred: bool) -> np.ndarray:
        """A group's covariance; not finite if inputs were not, which the caller must check."""
        lower = np.tril(self.products[number])
        whole = lower + np.tril(lower, -1).T
        width = self.site.part[1]
        mean = self.mean[number] / self.count
        rows = mean[None] if self.whole else mean.reshape(-1, width)
        whole /= self.count * (1 if self.whole else len(rows))
        if not centred:
            return whole
        before = np.trace(whole)
        with np.errstate(invalid="ignore", over="ignore"):
            whole -= (rows.T @ rows / len(rows)).astype(np.float32)
        if np.trace(whole) <= ROUNDING * before:
            return np.zeros_like(whole)
        return whole


def collect(
    run: Activations,
    batches: Iterable[Feeds],
    count: int,
    sites: Sequence[Site],
    folder: Path,
    *,
    among: Sequence[Site] | None = None,
    correct_bias: bool = True,
    memory: int = MEMORY,
    seed: int = 0,
    shrinks: bool = True,
    progress: Progress = silent,
) -> dict[str, Statistics]:
    """Statistics of every site's inputs, by the name of its kernel tensor; covariances as they
    are measured, uncertain or not, where `shrinks` is false.

    `run` gives the tensors that sites read; `count` is the number of samples in `batches`.
    Covariances are written to `folder`. Where those of all patches of the sites in `among`
    (by default `sites`) would take more than `memory` bytes, the largest are kept for
    channels alone: what a site gets does not depend on which others are looked at.

    Raises:
        DataError: there are no samples, or activations are NaN or infinite.
        UsageError: not even the channels' covariances fit the memory.
    """
    whole = _kept_whole(sites if among is None else among, memory)
    sums = {site.name: _Sums(site, whole=site.tensor in whole) for site in sites}
    done = 0
    for feeds in batches:
        progress("calibrate", done, count)
        seen, images = run(feeds), len(next(iter(feeds.values())))
        for site in sites:
            rng = np.random.default_rng((seed, done, *digits(site.name)))
            sums[site.name].add(patches(site, seen[site.source], rng, count), images)
        done += images
    if not done:
        raise DataError("<<calibration>>: no samples; give some, or leave it out")
    return _pooled(sums, folder, correct_bias=correct_bias, shrinks=shrinks)


def _kept_whole(sites: Sequence[Site], memory: int) -> set[str]:
    """Kernel tensors whose covariance of whole patches fits the memory; the largest go first.

    Sites that share a kernel are treated alike, because their covariances become one.
    """
    whole, small = (Counter[str](), Counter[str]())
    for site in sites:
        whole[site.tensor] += 4 * site.group * math.prod(site.part[1:]) ** 2
        small[site.tensor] += 4 * site.group * site.part[1] ** 2
    if small.total() > memory:
        raise UsageError(
            f"<<calibration_memory={memory / 2**30:g}>>: the covariances of the input channels "
            f"alone take {small.total() / 2**30:.3g} GB; give more"
        )
    kept = dict(whole)
    for tensor in sorted(whole, key=lambda n: -whole[n]):
        if sum(kept.values()) <= memory:
            break
        kept[tensor] = small[tensor]
    return {tensor for tensor in whole if kept[tensor] == whole[tensor]}


def patches(
    site: Site, values: np.ndarray, rng: np.random.Generator, samples: int = 1
) -> Float[np.ndarray, "group patches KS"]:
    """Patches of `values` [N, S, *image] at random positions, the same in each image."""
    window, geometry, inputs = site.shape[2:], site.geometry, site.part[1]
    if not window:
        rows = values.reshape(1, -1, inputs)
        return np.ascontiguousarray(rows, dtype=np.float32)
    count = geometry.dimensions
    pads = [(geometry.pads[k], geometry.pads[k + count]) for k in range(count)]
    inside = [slice(max(0, -a), -max(0, -b) or None) for a, b in pads]
    cropped = values[(slice(None), slice(None), *inside)]
    padded = np.pad(cropped, [(0, 0), (0, 0), *((max(0, a), max(0, b)) for a, b in pads)])
    spans = [(size - 1) * step + 1 for size, step in zip(window, geometry.dilations, strict=True)]
    axes = tuple(range(2, 2 + count))
    views = sliding_window_view(padded, spans, axis=axes)
    steps = [slice(None, None, step) for step in (*geometry.strides, *geometry.dilations)]
    views = views[:, :, *steps]
    places = views.shape[2 : 2 + count]
    picked = _picked(math.prod(places), math.prod(site.part[1:]), samples, rng)
    at: list[Any] = list(np.unravel_index(picked, places))
    chosen = views[:, :, *at]
    rows = np.moveaxis(chosen.reshape(*chosen.shape[:3], -1), 1, 3)  # N, P, K, all inputs
    rows = rows.reshape(*rows.shape[:3], site.group, inputs)
    rows = np.moveaxis(rows, 3, 0).reshape(site.group, -1, math.prod(site.part[1:]))
    return np.ascontiguousarray(rows, dtype=np.float32)


def _picked(places: int, size: int, samples: int, rng: np.random.Generator) -> np.ndarray:
    wanted = max(FEWEST, -(-PATCHES * size // samples))
    if wanted >= places:
        return np.arange(places)
    return np.sort(rng.choice(places, wanted, replace=False))


def _pooled(
    sums: Mapping[str, _Sums], folder: Path, *, correct_bias: bool, shrinks: bool
) -> dict[str, Statistics]:
    """Statistics by kernel tensor; sites that share one are weighted by their patches."""
    made: dict[str, Statistics] = {}
    tensors = dict.fromkeys(s.site.tensor for s in sums.values())
    for position, tensor in enumerate(tensors):
        mine = [s for s in sums.values() if s.site.tensor == tensor]
        centred = correct_bias and not any(s.site.bias_computed for s in mine)
        total, covariances, shares = sum(s.count for s in mine), [], []
        for number in range(mine[0].site.group):
            pooled = sum(s.covariance(number, centred=centred) * (s.count / total) for s in mine)
            pooled = np.ascontiguousarray(pooled, dtype=np.float32)
            refuse_infinite(pooled, mine[0].site.name)
            shares.append(max(s.share(number, pooled) for s in mine) if shrinks else 0.0)
            covariances.append(shrunk(pooled, shares[-1]))
        means = {s.site.name: s.mean / s.count for s in mine} if centred else {}
        paths, sha256 = stored(covariances, folder, f"covariance-{position}")
        made[tensor] = Statistics(paths, sha256, means, tuple(shares))
    return made


def stored(
    covariances: Sequence[np.ndarray], folder: Path, name: str
) -> tuple[tuple[Path, ...], str]:
    """The files of a covariance for every group, and the hash of them all."""
    paths, digest = [], hashlib.sha256()
    for number, covariance in enumerate(covariances):
        digest.update(np.ascontiguousarray(covariance).tobytes())
        paths.append(folder / f"{name}-{number}.npy")
        with atomic_write.whole(paths[-1], survives_power_cut=False) as stream:
            np.save(stream, covariance)
    return tuple(paths), digest.hexdigest()
