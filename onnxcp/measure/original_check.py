"""The original is judged first: a model at chance, or fed what it does not expect, would become
fast and useless, and its report would say that nothing was lost.

With class labels its accuracy is held against a guess, with images as labels its error against
that of one gray image. Without labels the first BatchNormalization says what it expects, or else
the outputs do: a network fed far too large or too small values names few classes. What is
suspicious is tried in other usual ways, so that the message can name the one that works.
"""

import math
from dataclasses import replace

import numpy as np

from onnxcp.data.roles import Inputs, Sources
from onnxcp.data.samples import Samples
from onnxcp.errors import BaselineError
from onnxcp.graph import io
from onnxcp.measure.chance import entropy
from onnxcp.measure.evaluator import Limits
from onnxcp.measure.expected_inputs import first_normalization
from onnxcp.measure.label_check import BEYOND_UNIT, by_classes, by_images
from onnxcp.measure.metrics import Metric, are_classes
from onnxcp.measure.original_outputs import Original, Outputs
from onnxcp.progress import Progress, silent
from onnxcp.results import BaselineRecord
from onnxcp.runtime.providers import Target

FIRST = 100  # samples whose outputs are looked at
REACHING = 16  # samples for the first normalization
CLOSE = 0.35  # in the logarithm of the size: a preset that is meant
FEWEST_NAMED, MOST_ALIKE = 20, 0.9  # samples that tell what is named; share of one class
LEFT, LOST, LOST_SMALL = 0.6, 0.9, 2.0  # of the entropy of the classes named; nats
ACCEPT = "<<accept_baseline>> goes on as it is"


def check_original(
    original: Original, *, accept: bool = False, progress: Progress = silent
) -> BaselineRecord:
    """Judge the original on some of its samples, and say what was found.

    Raises:
        BaselineError: it is at chance, or fed what it does not expect, and that is not accepted.
    """
    if original.inputs.samples is None:
        return BaselineRecord()
    progress("judge the original", 0, 1)
    found = _checked(original)
    if found.finding is not None and not accept:
        raise BaselineError(f"{original.model.path}: {found.finding}; {ACCEPT}")
    return found


def original_of(
    model: io.Model,
    runner: Outputs,
    inputs: Inputs,
    sources: Sources,
    target: Target,
    limits: Limits,
) -> Original:
    """The original of a run, with the metric that judges in it."""
    labels = None if inputs.samples is None else inputs.samples.labels
    metric = limits.metric
    if limits.max_error is not None or labels is None:
        metric = None
    elif isinstance(metric, Metric):
        metric = metric.name
    elif metric is None:
        metric = "top1" if are_classes(labels) else "psnr"
    return Original(model, runner, inputs, sources, target, metric)


def _checked(original: Original) -> BaselineRecord:
    """By labels where they judge and can tell; else by what needs none."""
    by_labels = None
    if original.top is not None:
        by_labels = by_classes(original, original.top)
    elif original.gives_images:
        by_labels = by_images(original)
    if by_labels is not None and (by_labels.finding is not None or by_labels.is_good):
        return by_labels
    other = _by_normalization(original) or _by_outputs(original)
    if other is None or (by_labels is not None and other.finding is None):
        return by_labels or BaselineRecord()
    return other


def _by_normalization(original: Original) -> BaselineRecord | None:
    """Whether samples are of the size that the first BatchNormalization expects; None where
    there is none to say it."""
    first = first_normalization(original.model.proto)
    if first is None:
        return None
    batching, target = original.inputs.batching, original.target
    samples = original.samples.spaced(REACHING)
    given = first.reach(samples, batching, target)
    if given is None:
        return None
    record = BaselineRecord("first normalization", given.size, None, 1.0, len(samples), given.fits)
    if given.fits:
        return record
    best: tuple[float, str] | None = None
    for way in original.ways(samples):
        found = first.reach(way.samples, batching, target)
        if found is None or not found.fits:
            continue
        apart = abs(math.log(found.size))
        if best is None or apart < best[0]:
            best = apart, f"with {way.option} it is {found.size:.1f} times"
        if best[0] < CLOSE:
            break
    why = "check <<preprocess>> (scale, mean, std)" if best is None else best[1]
    return replace(record, finding=f"what the original is fed is {given}: {why}")


def _by_outputs(original: Original) -> BaselineRecord | None:
    """Whether the classes named look like those of a network fed far too large or too small
    values: few, where another preprocessing brings out many."""
    samples = original.samples.spaced(FIRST)
    scores = original.scores(samples) if len(samples) >= FEWEST_NAMED else None
    if scores is None or scores.shape[1] < 3:
        return None
    named = scores.argmax(axis=1)
    given, most = entropy(named), np.unique(named, return_counts=True)[1].max() / len(named)
    record = BaselineRecord("classes named", given, None, None, len(samples), False)
    if given > LEFT * np.log(min(scores.shape[1], len(samples))):
        return record
    is_large = _largest(samples) > BEYOND_UNIT
    if not is_large and most < MOST_ALIKE:
        return record
    option = _way_with_more(original, samples, given, is_large=is_large)
    if option is None:
        return record
    size = "large" if is_large else "small"
    text = f"the original names one class for {most:.0%} of {len(samples)} samples, as networks do "
    text += f"that are fed values far too {size}: with {option} it tells them apart"
    return replace(record, finding=text)


def _way_with_more(
    original: Original, samples: Samples, given: float, *, is_large: bool
) -> str | None:
    """The first way of values of the other size with which far more classes are named."""
    for way in original.ways(samples):
        if (_largest(way.samples) > BEYOND_UNIT) == is_large:
            continue
        scores = original.scores(way.samples)
        found = 0.0 if scores is None else entropy(scores.argmax(axis=1))
        if found - given >= (LOST if is_large else LOST_SMALL) and given <= LEFT * found:
            return way.option
    return None


def _largest(samples: Samples) -> float:
    feeds = samples.read(0, REACHING)
    return max((float(np.abs(a).max()) for a in feeds.values() if a.size), default=0.0)
