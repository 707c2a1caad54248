"""Samples to run a model on, read in batches from a source when they are needed."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxcp.graph.input_specs import Feeds, Shape


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Some samples of a source.

    `pick` reads and preprocesses samples of the source by number; `numbers` are those in this
    set. `labels` [samples, ...] are None if there are none. `notes` tell the user how the source
    was read.
    """

    pick: Callable[[Sequence[int]], Feeds]
    numbers: Sequence[int]
    labels: np.ndarray | None
    source: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, start: int, stop: int) -> Feeds:
        """Feeds of the samples from `start` up to `stop`."""
        return self.pick(self.numbers[start:stop])

    def batches(self, size: int) -> Iterator[Feeds]:
        """All samples in order, `size` at a time; the last batch may be smaller."""
        for start in range(0, len(self), size):
            yield self.read(start, start + size)

    def first(self, count: int) -> "Samples":
        """The first `count` samples."""
        return self.at(range(min(count, len(self))))

    def after(self, count: int) -> "Samples":
        """All samples except the first `count`."""
        return self.at(range(count, len(self)))

    def split(self, step: int) -> tuple["Samples", "Samples"]:
        """Every `step`-th sample from the first on, and the rest.

        Equal distances, because sources are often sorted by class.
        """
        chosen = range(0, len(self), step)
        return self.at(chosen), self.at([n for n in range(len(self)) if n % step])

    def spaced(self, limit: int) -> "Samples":
        """At most `limit` samples at equal distances."""
        return self.split(max(1, -(-len(self) // limit)))[0]

    def at(self, positions: Sequence[int]) -> "Samples":
        """The samples at these positions, counted from 0."""
        labels = None if self.labels is None else self.labels[list(positions)]
        return replace(
            self, numbers=[self.numbers[position] for position in positions], labels=labels
        )

    def shapes(self) -> dict[str, Shape]:
        """Shape of one sample of every input, without the batch."""
        return {name: array.shape[1:] for name, array in self.read(0, 1).items()}


def digest(samples: Samples, size: int) -> str:
    """The SHA-256 of samples and labels, read `size` at a time; it depends on `size`."""
    hasher = hashlib.sha256()
    for feeds in samples.batches(size):
        for name in sorted(feeds):
            hasher.update(f"|{name}{feeds[name].dtype}{feeds[name].shape}|".encode())
            hasher.update(np.ascontiguousarray(feeds[name]).tobytes())
    if samples.labels is not None:
        hasher.update(np.ascontiguousarray(samples.labels).tobytes())
    return hasher.hexdigest()


@dataclass(frozen=True, slots=True)
class Batching:
    """How many samples one run of the model takes.

    A `fixed` batch is always full: missing samples are padded, and cut from the outputs.
    `alone` says that every sample has its own run, because the outputs do not have samples as
    their first axis; such outputs are not cut.
    """

    size: int
    fixed: bool
    alone: bool = False

    @property
    def step(self) -> int:
        """How many distinct samples one run takes."""
        return 1 if self.alone else self.size

    def run(
        self, runner: Callable[[Feeds], Sequence[np.ndarray]], feeds: Feeds
    ) -> list[np.ndarray]:
        """Outputs of one batch of at most `step` samples."""
        count = len(next(iter(feeds.values())))
        missing = max(0, self.size - count) if self.fixed else 0
        if missing:
            feeds = {
                n: np.concatenate([a, np.repeat(a[-1:], missing, 0)]) for n, a in feeds.items()
            }
        if not missing or self.alone:
            return list(runner(feeds))
        return [self._cut(output, count) for output in runner(feeds)]

    def _cut(self, output: np.ndarray, count: int) -> np.ndarray:
        """The output without the rows of padding, if it has one row per sample."""
        is_batch = isinstance(output, np.ndarray) and output.ndim and len(output) == self.size
        return output[:count] if is_batch else output
