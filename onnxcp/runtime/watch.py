"""Running a model to see its inner tensors: the one way to do it.

A copy of the model has them among its outputs. That keeps the runtime from fusing nodes across
them, so what is seen is what the nodes compute.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from onnxcp.graph import io
from onnxcp.graph.input_specs import Feeds
from onnxcp.graph.splice import with_outputs
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import Runner, open_runner
from onnxcp.storage import temporary

LARGEST_IN_MEMORY = 2**26  # bytes of a model that need not go through a file: a heuristic
FILE = "watched.onnx"

Run = Callable[[Runner, Feeds], Sequence[np.ndarray]]


def write_watched(
    proto: onnx.ModelProto,
    names: Sequence[str],
    path: Path,
    external: Collection[str] = (),
) -> Path:
    """Write a copy of a model that gives more of its tensors, after its own outputs.

    Raises:
        OutputError: as `io.save`.
    """
    io.save(with_outputs(proto, names), path, frozenset(external))
    return path


def open_watched(
    proto: onnx.ModelProto,
    names: Sequence[str],
    target: Target,
    external: Collection[str] = (),
) -> Runner:
    """A runner of a model that gives the named tensors, inner ones too; all outputs where none
    is named.

    Raises:
        OnnxcpError: as `open_runner`.
    """
    asked = list(names) or None
    if not external:
        copy = with_outputs(proto, names)
        if copy.ByteSize() <= LARGEST_IN_MEMORY:
            return open_runner(copy.SerializeToString(), target, asked)
    with temporary.folder() as folder:
        path = write_watched(proto, names, folder / FILE, external)
        return open_runner(path, target, asked)


@dataclass(frozen=True, slots=True, eq=False)
class Watch:
    """A model that shows its tensors by name. `run` puts feeds through a runner, in its own way
    where batches have to be filled up."""

    runner: Runner
    run: Run

    @classmethod
    def of(
        cls,
        proto: onnx.ModelProto,
        names: Sequence[str],
        target: Target,
        external: Collection[str] = (),
        run: Run = lambda runner, feeds: runner(feeds),
    ) -> "Watch":
        """Watch the named tensors; those that are fed need not be computed.

        Raises:
            OnnxcpError: as `open_runner`.
        """
        stored = {tensor.name for tensor in proto.graph.initializer}
        fed = {value.name for value in proto.graph.input} - stored
        inner = [name for name in dict.fromkeys(names) if name not in fed]
        return cls(open_watched(proto, inner, target, external), run)

    def __call__(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """What is fed, and what the model makes of it, by tensor.

        Raises:
            OnnxcpError: as a `Runner`.
        """
        results = self.run(self.runner, feeds)
        return {**feeds, **dict(zip(self.runner.outputs, results, strict=True))}
