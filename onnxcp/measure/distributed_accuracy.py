"""Accuracy on a cluster: samples are sent to its workers once, models when they are evaluated.

Outputs come back in the order of the samples and by batch, as without a cluster.
"""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from onnxcp.cluster.pool import Cluster, SharedValue
from onnxcp.data.samples import Batching, Samples
from onnxcp.graph.input_specs import Feeds
from onnxcp.graph.io import data_file
from onnxcp.measure.judged_outputs import Judged
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import Runner, open_runner
from onnxcp.storage import temporary

CHUNKS = 4  # for every thread of the cluster, so that all end at about the same time
CHUNK_BYTES = 64 * 2**20  # of samples, at most, where one batch has no more


class Spread:
    """Remembers which samples are where, for all models run on them."""

    def __init__(self, cluster: Cluster, target: Target) -> None:
        self.cluster, self.target = cluster, target
        self._chunks: dict[tuple[Samples, Batching], list[_Chunk]] = {}

    def runner(self, judged: Judged, path: Path) -> "SpreadRunner":
        """A model file's judged tensors, computed by the cluster."""
        return SpreadRunner(self, judged, path)

    def chunks(self, samples: Samples, batching: Batching) -> list["_Chunk"]:
        known = samples, batching
        if known not in self._chunks:
            step = _step(samples, batching, self.cluster.threads)
            starts = range(0, len(samples), step)
            parts = [samples.first(start + step).after(start) for start in starts]
            self._chunks[known] = [_Chunk(part, batching) for part in parts]
        return self._chunks[known]


class SpreadRunner:
    """A model that all samples are run through far away, and one batch here.

    One batch is for where a change of all outputs is measured: these are as much to send back
    as to compute.
    """

    def __init__(self, spread: Spread, judged: Judged, path: Path) -> None:
        self._spread, self._judged, self._path = spread, judged, path
        self._files = _Files(path, judged)
        self.outputs = judged.given

    def __call__(self, feeds: Feeds) -> Sequence[np.ndarray]:
        return self._here(feeds)

    @cached_property
    def _here(self) -> Runner:
        return self._judged.opened(self._path, self._spread.target.unhurried)

    def all_outputs(self, samples: Samples, batching: Batching) -> Iterator[list[np.ndarray]]:
        """The model's outputs on every batch of the samples, in order."""
        cluster, target = self._spread.cluster, self._spread.target
        answers = [
            cluster.executor.submit(
                cluster.call, all_outputs, target, self.outputs, self._files, chunk
            )
            for chunk in self._spread.chunks(samples, batching)
        ]
        for answer in answers:
            yield from answer.result()


@dataclass(frozen=True, slots=True, eq=False)
class _Chunk(SharedValue):
    """Some of the samples."""

    samples: Samples
    batching: Batching

    def packed(self) -> "_Feeds":
        return _Feeds(self.batching, tuple(self.samples.batches(self.batching.step)))


@dataclass(frozen=True, slots=True, eq=False)
class _Feeds:
    """Samples as a worker holds them."""

    batching: Batching
    batches: tuple[Feeds, ...]

    def __sizeof__(self) -> int:  # what Dask goes by when it places and keeps it
        return sum(array.nbytes for feeds in self.batches for array in feeds.values())


@dataclass(frozen=True, slots=True, eq=False)
class _Files(SharedValue):
    """A model as written by `files.save`: its file, and its external data if it has some; with
    what is judged of it among its outputs."""

    path: Path
    judged: Judged

    def packed(self) -> "_Model":
        with temporary.folder() as folder:
            path = self.judged.exposed(self.path, folder)
            written = (path, data_file(path))
            return _Model({p.name: p.read_bytes() for p in written if p.exists()}, path.name)


class _Model:
    """A model as a worker holds it, with the session that its calls share: one thread each.

    The session is opened by the first of them and goes with the model.
    """

    def __init__(self, contents: Mapping[str, bytes], name: str) -> None:
        self._contents, self._name = contents, name
        self._opening = threading.Lock()
        self._runner: Runner | None = None

    def __reduce__(self) -> tuple[type["_Model"], tuple[Mapping[str, bytes], str]]:
        return _Model, (self._contents, self._name)

    def __sizeof__(self) -> int:
        return sum(map(len, self._contents.values()))

    def runner(self, target: Target, names: Sequence[str]) -> Runner:
        with self._opening:
            if self._runner is None:
                self._runner = self._opened(target, names)
            return self._runner

    def _opened(self, target: Target, names: Sequence[str]) -> Runner:
        with temporary.folder() as folder:
            for name, content in self._contents.items():
                (folder / name).write_bytes(content)
            return open_runner(folder / self._name, target, names)


def all_outputs(
    target: Target, names: Sequence[str], model: _Model, chunk: _Feeds
) -> list[list[np.ndarray]]:
    """On a worker: outputs of a model, in the order of their names, on some batches."""
    runner = model.runner(replace(target, threads=1), names)
    return [chunk.batching.run(runner, feeds) for feeds in chunk.batches]


def _step(samples: Samples, batching: Batching, threads: int) -> int:
    """Samples in a chunk: whole batches of them."""
    size = sum(array.nbytes for array in samples.read(0, 1).values())
    wanted = min(len(samples) / (CHUNKS * threads), CHUNK_BYTES / max(size, 1))
    return batching.step * max(1, math.floor(wanted / batching.step))
