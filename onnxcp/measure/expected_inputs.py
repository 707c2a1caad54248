"""Whether samples look like the training data, by the first BatchNormalization.

It stores the mean and variance of its input in training. With similar inputs, values are of order 1
in these units; images of 0..255 instead of normalized ones are of order 100. Only a large misfit is
significant: for compressed or further trained weights the statistics are off by a small factor.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from onnxcp.data.samples import Batching, Samples
from onnxcp.errors import OnnxcpError
from onnxcp.graph.operators import operator
from onnxcp.graph.splice import only
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner

# Of eleven public networks fed as they were trained the size is 0.9 to 3.1, fed 0..255 in place
# of normalized images 67 to 400.
MOST_SIZE = 12.0
LEAST_VARIANCE = 1e-3  # of what it was in training: nearly the same for every sample and place


@dataclass(frozen=True, slots=True)
class Reach:
    """What reaches the first BatchNormalization, in units of its statistics: the root mean
    square and the variance, of the median channel."""

    node: str
    size: float
    variance: float

    @property
    def fits(self) -> bool:
        return self.size <= MOST_SIZE and self.variance >= LEAST_VARIANCE

    def __str__(self) -> str:
        if self.size > MOST_SIZE:
            return f"{self.size:.0f} times as large as {self.node} expects"
        share = 1 / max(self.variance, 1e-12) ** 0.5
        return f"{share:.0f} times less varied than {self.node} expects"


@dataclass(frozen=True, slots=True, eq=False)
class Normalization:
    """The first BatchNormalization that has statistics of a training, and the part of the model
    before it."""

    name: str
    front: bytes | None  # None: it reads the model's input itself
    input: str
    mean: np.ndarray
    variance: np.ndarray

    def reach(self, samples: Samples, batching: Batching, target: Target) -> Reach | None:
        """What reaches it; None where its part of the model does not run on its own."""
        try:
            values = np.concatenate(list(self._values(samples, batching, target)))
        except (OnnxcpError, ValueError):
            return None
        if values.ndim < 2 or values.shape[1] != len(self.mean) or not np.isfinite(values).all():
            return None
        axes = (0, *range(2, values.ndim))
        mean, variance = values.mean(axes), values.var(axes)
        moved = np.square(mean - self.mean)
        size = float(np.sqrt(np.median((variance + moved) / self.variance)))
        return Reach(self.name, size, float(np.median(variance / self.variance)))

    def _values(self, samples: Samples, batching: Batching, target: Target) -> Iterator[np.ndarray]:
        runner = None if self.front is None else open_runner(self.front, target)
        for feeds in samples.batches(batching.size):
            read = feeds[self.input] if runner is None else batching.run(runner, feeds)[0]
            yield np.asarray(read, np.float64)


def first_normalization(proto: onnx.ModelProto) -> Normalization | None:
    """The first one of a model; None where it has none, or only untrained ones."""
    stored = _stored(proto.graph)
    for node in proto.graph.node:
        if operator(node) != "BatchNormalization":
            continue
        if len(node.input) < 5 or not {*node.input[3:5]} <= stored.keys():
            continue
        mean, variance = (
            np.asarray(onnx.numpy_helper.to_array(stored[name]), np.float64)
            for name in node.input[3:5]
        )
        variance = variance + _epsilon(node)
        if not mean.any() or not (np.isfinite(mean).all() and (variance > 0).all()):
            return None  # as it was before any training, or damaged
        fed = {i.name for i in proto.graph.input}
        alone = node.input[0] in fed
        front = None if alone else only(proto, node.input[0]).SerializeToString()
        name = node.name or f"BatchNormalization → {node.output[0]}"
        return Normalization(name, front, node.input[0], mean, variance)
    return None


def _epsilon(node: onnx.NodeProto) -> float:
    return next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)


def _stored(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    found = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if operator(node) == "Constant":
            values = [a.t for a in node.attribute if a.name == "value"]
            found |= dict(zip(node.output, values, strict=False))
    return found
