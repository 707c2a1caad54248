"""What labels say of the original: is it right more often than a guess, is it nearer to the images
it should give than one gray image, and would other labels or another preprocessing change that.
"""

from dataclasses import dataclass, replace

import numpy as np

from onnxcp.data.samples import Samples
from onnxcp.measure.chance import LEAST_GAIN, Standing, chance, is_better, top
from onnxcp.measure.original_outputs import Original
from onnxcp.results import BaselineRecord

FIRST, MOST = 100, 1000  # samples: to judge by, and where those do not tell
SHIFTS = {0: "", -1: "1 subtracted from the labels", 1: "1 added to the labels"}
CLEAR_FACTOR = 2.0  # of the squared error, between two ways to preprocess: 3 dB
BEYOND_UNIT = 32.0  # larger values are 0..255, not normalized
LABELS_ORDER = (
    "the outputs do tell the labels apart, but under other numbers: the labels count the classes "
    "in another order than the model"
)
NOTHING_HELPS = (
    "no usual preprocessing changes that; check <<preprocess>> (scale, mean, std, channel order), "
    "and that labels number the classes as the model does"
)


@dataclass(frozen=True, slots=True, eq=False)
class _Named:
    """The classes that a model names for samples with labels, and which are right."""

    strongest: np.ndarray  # [samples, k]
    classes: int
    labels: np.ndarray

    @property
    def hits(self) -> np.ndarray:
        right: np.ndarray = (self.strongest == self.labels.reshape(-1, 1)).any(axis=1)
        return right

    @property
    def standing(self) -> Standing:
        guess = chance(self.strongest, self.classes, self.labels)
        return Standing(int(self.hits.sum()), len(self.labels), guess)

    @property
    def skill(self) -> float:
        """The share of hits beyond that of a guess; none where there is one label alone, which is
        right as often as it is named."""
        share = float(self.hits.mean())
        return share - chance(self.strongest, self.classes, self.labels, alone=True)

    @property
    def are_labels_known(self) -> bool:
        """Whether the model has all the classes that labels name."""
        return bool(((self.labels >= 0) & (self.labels < self.classes)).all())

    def shifted(self, by: int) -> "_Named":
        return replace(self, labels=self.labels + by)

    @property
    def renamed(self) -> Standing:
        """Were every class the label that it is named most for, no label of two classes."""
        named, labels = self.strongest[:, 0], self.labels
        pairs, counts = np.unique(np.stack([named, labels], axis=1), axis=0, return_counts=True)
        label_of = dict[int, int]()
        for name, label in pairs[np.argsort(-counts, kind="stable")].tolist():
            if name not in label_of and label not in label_of.values():
                label_of[name] = label
        other = np.array([[label_of.get(name, -1)] for name in named.tolist()])
        hits = int((other[:, 0] == labels).sum()) - len(label_of)  # what decides is no evidence
        return Standing(max(hits, 0), len(labels), chance(other, self.classes, labels))


def _named(original: Original, samples: Samples, k: int) -> _Named | None:
    scores, labels = original.scores(samples), samples.labels
    if scores is None or labels is None or scores.shape[1] <= k:
        return None
    return _Named(top(scores, k), scores.shape[1], labels.reshape(-1).astype(np.int64))


def by_classes(original: Original, k: int) -> BaselineRecord | None:
    """Whether the original is right more often than a guess, and than it would be otherwise."""
    samples = original.samples.spaced(FIRST)
    given = _named(original, samples, k)
    if given is None:
        return None
    metric = str(original.metric)
    if given.are_labels_known and given.standing.is_good:
        return _record(metric, given.standing)
    better = _better_way(original, samples, given, k)
    if better is not None:
        return replace(
            _record(metric, given.standing), finding=f"{_words(metric, given.standing)}: {better}"
        )
    if not given.are_labels_known:
        return None  # the metric says which label
    is_renamed = given.renamed.is_good
    if not is_renamed and not given.standing.is_above and len(original.samples) > len(samples):
        given = _named(original, original.samples.spaced(MOST), k) or given
    record = _record(metric, given.standing)
    if not is_renamed and not given.standing.is_poor:
        return record
    why = LABELS_ORDER if is_renamed else NOTHING_HELPS
    guess = f"a guess has {given.standing.chance:.2%}"
    return replace(record, finding=f"{_words(metric, given.standing)}, {guess}: {why}")


def _record(metric: str, found: Standing) -> BaselineRecord:
    low, high = found.interval
    return BaselineRecord(
        by=metric,
        value=found.share,
        interval=(low, high),
        chance=found.chance,
        samples=found.samples,
        is_good=found.is_good,
    )


def _words(metric: str, found: Standing) -> str:
    return f"the original's {metric} is {found.share:.1%} of {found.samples} samples"


def _better_way(original: Original, samples: Samples, given: _Named, k: int) -> str | None:
    """Labels that start elsewhere, or another preprocessing, with which the original is clearly
    right more often: the best, of the presets if one of them makes it good."""
    best = _best(given, given, "")
    if best is not None:
        return best[1]
    for way in original.ways(samples):
        if not way.is_preset and best is not None and best[0].is_good:
            break
        named = _named(original, way.samples, k)
        found = None if named is None else _best(given, named, way.option)
        if found is not None and (best is None or found[0].hits > best[0].hits):
            best = found
    return None if best is None else best[1]


def _best(given: _Named, way: _Named, option: str) -> tuple[Standing, str] | None:
    """Standing and words of the best shift of labels, where that is clearly better than as
    given."""
    best: tuple[Standing, str] | None = None
    for by, change in SHIFTS.items():
        other = way.shifted(by)
        if not is_better(given.hits, other.hits) or not other.standing.is_above:
            continue
        if given.standing.is_above and other.skill - given.skill < LEAST_GAIN:
            continue  # it names the labels at hand more often, whatever the sample
        what = " and ".join(part for part in (option, change) if part)
        seem = "labels seem to start at 1: " if by == -1 else ""
        share = f"with {what} it is {other.standing.share:.0%} of {len(way.labels)}"
        if best is None or other.standing.hits > best[0].hits:
            best = other.standing, seem + share
    return best


def by_images(original: Original) -> BaselineRecord | None:
    """Whether the original comes nearer to its labels than one gray image does."""
    samples = original.samples.spaced(FIRST)
    squares, labels = original.squares(samples), samples.labels
    if squares is None or labels is None:
        return None
    gray = np.square(labels - labels.mean(dtype=np.float64)).reshape(len(labels), -1).mean(axis=1)
    mine, other = float(squares.mean()), float(gray.mean())
    record = BaselineRecord("psnr", _decibels(mine), None, _decibels(other), len(samples), True)
    if mine < other:
        return record
    words = f"the original's PSNR is {_decibels(mine):.1f} dB, that of a gray image "
    words += f"{_decibels(other):.1f} dB"
    best = _nearest(original, samples, min(mine / CLEAR_FACTOR, other))
    if best is None and float(np.abs(labels).max()) > BEYOND_UNIT:
        best = "labels reach beyond 0..1, in which PSNR is taken: divide them by 255"
    why = best or "check <<preprocess>>, and that labels are the images that outputs should be"
    return replace(record, is_good=False, finding=f"{words}: {why}")


def _decibels(square: float) -> float:
    return float(-10 * np.log10(max(square, 1e-12)))


def _nearest(original: Original, samples: Samples, most: float) -> str | None:
    found: tuple[float, str] | None = None
    for way in original.ways(samples):
        squares = original.squares(way.samples)
        error = np.inf if squares is None else float(squares.mean())
        if error <= most and (found is None or error < found[0]):
            found = error, f"with {way.option} it is {_decibels(error):.1f} dB"
    return None if found is None else found[1]
