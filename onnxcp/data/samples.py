"""Samples to run a model on: some of a source, read in batches."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxcp.graph.input_specs import Feeds, Shape


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Some samples of a source: `pick` gives preprocessed feeds of those it is given the
    numbers of, `numbers` are the ones meant here. `notes` say what was made of the source that a
    user may not expect."""

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
        """All but the first `count` samples."""
        return self.at(range(count, len(self)))

    def split(self, step: int) -> tuple["Samples", "Samples"]:
        """Every `step`-th sample, from the first on, and the others: sources are often sorted
        by class."""
        taken = range(0, len(self), step)
        return self.at(taken), self.at([n for n in range(len(self)) if n % step])

    def spaced(self, most: int) -> "Samples":
        """At most so many samples, equally far apart."""
        return self.split(max(1, -(-len(self) // most)))[0]

    def at(self, places: Sequence[int]) -> "Samples":
        """The samples at some places."""
        labels = None if self.labels is None else self.labels[list(places)]
        return replace(self, numbers=[self.numbers[place] for place in places], labels=labels)

    def shapes(self) -> dict[str, Shape]:
        """Shape of one sample of every input, without the batch."""
        return {name: array.shape[1:] for name, array in self.read(0, 1).items()}


def digest(samples: Samples, size: int) -> str:
    """The hash of samples and labels, read `size` at a time."""
    made = hashlib.sha256()
    for feeds in samples.batches(size):
        for name in sorted(feeds):
            made.update(f"|{name}{feeds[name].dtype}{feeds[name].shape}|".encode())
            made.update(np.ascontiguousarray(feeds[name]).tobytes())
    if samples.labels is not None:
        made.update(np.ascontiguousarray(samples.labels).tobytes())
    return made.hexdigest()


@dataclass(frozen=True, slots=True)
class Batching:
    """How many samples go in at once; a `fixed` batch is filled up and cut again.

    `alone` says that every sample has a run of its own, because outputs do not have the samples
    as their first axis: what the run gives is that sample's, and nothing is cut.
    """

    size: int
    fixed: bool
    alone: bool = False

    @property
    def step(self) -> int:
        """How many different samples one run takes."""
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
        """Without what is of samples that filled the batch up, where it has a row for each."""
        is_batch = isinstance(output, np.ndarray) and output.ndim and len(output) == self.size
        return output[:count] if is_batch else output
