"""The original model as it is judged first: what its outputs say on some of the samples."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxcp.data.presets import Alternative, alternatives
from onnxcp.data.roles import Inputs, Sources
from onnxcp.data.samples import Samples
from onnxcp.graph import io
from onnxcp.graph.input_specs import Feeds
from onnxcp.runtime.providers import Target

Outputs = Callable[[Feeds], Sequence[np.ndarray]]

CLASS_METRICS = {"top1": 1, "top5": 5}
IMAGE_METRICS = ("psnr",)


@dataclass(frozen=True, slots=True, eq=False)
class Original:
    """The original and what it is fed; `metric` is the one that judges in the end, None where
    labels have no part in it."""

    model: io.Model
    runner: Outputs
    inputs: Inputs
    sources: Sources
    target: Target
    metric: str | None = None

    @property
    def samples(self) -> Samples:
        assert self.inputs.samples is not None
        return self.inputs.samples

    @property
    def top(self) -> int | None:
        """How many classes may be named for a hit; None where labels are no class numbers."""
        labels = self.samples.labels
        if labels is None or labels.dtype.kind not in "iu" or labels.size != len(labels):
            return None
        return CLASS_METRICS.get(self.metric or "")

    @property
    def gives_images(self) -> bool:
        return self.metric in IMAGE_METRICS and self.samples.labels is not None

    def run(self, samples: Samples) -> Iterator[list[np.ndarray]]:
        """All outputs, batch by batch."""
        batching = self.inputs.batching
        for feeds in samples.batches(batching.size):
            yield [o for o in batching.run(self.runner, feeds) if isinstance(o, np.ndarray)]

    def scores(self, samples: Samples) -> np.ndarray | None:
        """Class scores [samples, classes] of the first output that has them; None without."""
        parts, place = list[np.ndarray](), None
        for outputs in self.run(samples):
            place = _class_scores(outputs) if place is None else place
            if place is None:
                return None
            parts.append(outputs[place].reshape(len(outputs[place]), -1))
        found = np.concatenate(parts)
        return found if len(found) == len(samples) else None

    def squares(self, samples: Samples) -> np.ndarray | None:
        """Mean squared error of every sample against its label, an image; None where no output
        has the label's shape."""
        labels, done, found = samples.labels, 0, list[np.ndarray]()
        assert labels is not None
        for outputs in self.run(samples):
            fits = [o for o in outputs if o.shape[1:] == labels.shape[1:] and o.ndim]
            if not fits:
                return None
            part = labels[done : done + len(fits[0])].astype(np.float64)
            error = np.square(fits[0].astype(np.float64) - part)
            found.append(error.reshape(len(part), -1).mean(axis=1))
            done += len(part)
        return np.concatenate(found)

    def ways(self, samples: Samples) -> Iterator[Alternative]:
        """The same samples preprocessed in other ways."""
        return alternatives(samples, self.model.inputs, self.sources)


def _class_scores(outputs: Sequence[np.ndarray]) -> int | None:
    """The first output that has several numbers a sample and no positions."""
    for place, output in enumerate(outputs):
        if output.dtype.kind != "f" or output.ndim < 2:
            continue
        if output.shape[1] > 1 and output.size == output.shape[0] * output.shape[1]:
            return place
    return None
