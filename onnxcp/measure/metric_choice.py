"""Which metric judges, and which outputs: as asked for, or by what outputs and labels are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxcp.errors import UsageError
from onnxcp.graph.input_specs import Shape
from onnxcp.measure.metric_table import METRICS
from onnxcp.measure.metrics import Labels, Metric, are_classes, class_scores


@dataclass(frozen=True, slots=True)
class Choice:
    """A metric and the outputs, by place, that it judges."""

    metric: Metric
    places: tuple[int, ...]


def choose(
    asked: str | Metric | None,
    outputs: Mapping[str, Shape],
    labels: Labels,
    source: str,
    only: Sequence[str] = (),
) -> Choice:
    """The metric asked for and what it judges. Without one top1 where labels are classes and an
    output has scores of them, psnr where labels are images, agreement for one output of class
    scores, else relative-error.

    `outputs` are all judged outputs with the shape of one sample's; `only` names some of them.

    Raises:
        UsageError: an unknown metric or output, missing labels, or a metric that cannot differ
            on what it would judge.
    """
    places = _chosen(outputs, only)
    metric = _named(asked, outputs, places, labels)
    if metric.needs_labels and labels is None:
        raise UsageError(
            f"<<metric={metric.name}>>: needs labels, and {source} has none; add them, or choose "
            "agreement, cosine or relative-error"
        )
    if metric.function is not None:
        return Choice(metric, places)
    if metric.needs_labels:
        return Choice(metric, (_labelled(metric, outputs, places, labels),))
    _refuse_blind(metric, outputs, places)
    return Choice(metric, places)


def _chosen(outputs: Mapping[str, Shape], only: Sequence[str]) -> tuple[int, ...]:
    names = list(outputs)
    for name in only:
        if name not in outputs:
            raise UsageError(f"<<output_name={name}>>: not judged; choose of {', '.join(names)}")
    return tuple(place for place, name in enumerate(names) if not only or name in only)


def _named(
    asked: str | Metric | None,
    outputs: Mapping[str, Shape],
    places: Sequence[int],
    labels: Labels,
) -> Metric:
    if isinstance(asked, Metric):
        return asked
    if asked is not None and asked not in METRICS:
        raise UsageError(
            f"<<metric={asked}>>: unknown; choose one of {', '.join(METRICS)}, or module:function"
        )
    if asked is not None:
        return METRICS[asked]
    shapes = [shape for place, shape in enumerate(outputs.values()) if place in places]
    if labels is not None and not are_classes(labels):
        return METRICS["psnr"]
    if labels is not None and _are_of(labels, shapes):
        return METRICS["top1"]
    is_classifier = len(shapes) == 1 and class_scores(shapes[0])
    return METRICS["agreement" if is_classifier else "relative-error"]


def _are_of(labels: np.ndarray, shapes: Sequence[Shape]) -> bool:
    """Whether classes can be those of an output: of a model with several outputs, which is seldom
    a classifier, only where it has as many."""
    classes = [shape[0] for shape in shapes if class_scores(shape)]
    return bool(classes) and (len(shapes) == 1 or int(labels.max()) < classes[0])


def _labelled(
    metric: Metric, outputs: Mapping[str, Shape], places: Sequence[int], labels: Labels
) -> int:
    """The first output that labels are of."""
    shapes = list(outputs.values())
    if metric.name == "psnr":
        assert labels is not None
        fitting = [place for place in places if shapes[place] == labels.shape[1:]]
        return next(iter(fitting or places))
    fitting = [place for place in places if class_scores(shapes[place])]
    if not fitting:
        shown = ", ".join(f"{n} {'x'.join(map(str, s))}" for n, s in outputs.items())
        raise UsageError(
            f"<<metric={metric.name}>>: needs an output of class scores, the model gives for one "
            f"sample {shown}; choose <<metric=relative-error>>, or module:function"
        )
    _refuse_blind(metric, outputs, fitting[:1])
    return fitting[0]


def _refuse_blind(metric: Metric, outputs: Mapping[str, Shape], places: Sequence[int]) -> None:
    """Raises UsageError where a metric gives the same whatever an output becomes."""
    pairs = list(outputs.items())
    for name, shape in (pairs[place] for place in places):
        why = None if metric.blind is None else metric.blind(shape)
        if why is not None:
            other = "top1" if metric.name == "top5" and shape[0] > 1 else "relative-error"
            raise UsageError(
                f"<<metric={metric.name}>>: cannot change on output {name!r}, which {why}; choose "
                f"<<metric={other}>>, or other outputs by <<output_name>>"
            )
