"""The tensors by which a model is judged: its outputs, or tensors before them.

A budget bounds the change of numbers. An output of floats is judged itself. One whose shape
depends on the data (what NonMaxSuppression leaves), that holds whole numbers or texts, or that is
no tensor (the maps of a ZipMap) is judged where numbers were last: at the tensors of floats, of a
shape that does not depend on the data, from which the rest is computed. The rest is never changed.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from onnxcp.errors import UsageError
from onnxcp.graph import index, io
from onnxcp.graph.data_dependent import Dependence, dependence
from onnxcp.graph.input_specs import Feeds
from onnxcp.graph.operators import operator
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import Runner, open_runner
from onnxcp.runtime.watch import open_watched, write_watched

T = onnx.TensorProto
FLOAT_TYPES = (T.FLOAT, T.FLOAT16, T.DOUBLE, T.BFLOAT16)
FLOATS = tuple(f"tensor({name})" for name in ("float", "float16", "double", "bfloat16"))
TEXTS = "tensor(string)"
MAX_NAMED = 3


@dataclass(frozen=True, slots=True)
class Judged:
    """`names` are the judged tensors, of which those `inside` are no outputs of the model.

    `notes` say for every output that is not judged itself what is judged in its place.
    `tensors` are all outputs that are tensors, of which those that are `varying` have a shape
    that depends on the data.
    """

    names: tuple[str, ...]
    tensors: tuple[str, ...]
    inside: tuple[str, ...] = ()
    varying: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_whole: bool = False  # all tensors are wanted, for a metric of the whole set

    @property
    def given(self) -> tuple[str, ...]:
        """What runners give: the judged tensors, then the others that are wanted."""
        others = self.tensors if self.is_whole else ()
        return (*self.names, *(name for name in others if name not in self.names))

    @property
    def comparable(self) -> tuple[str, ...]:
        """All that two models can be compared by: outputs of whole numbers and texts, too."""
        return (*(n for n in self.tensors if n not in self.varying), *self.inside)

    def opened(self, path: Path, target: Target, names: Sequence[str] | None = None) -> Runner:
        """A runner of a model file that gives the wanted tensors, or others of its outputs."""
        wanted = self.given if names is None else tuple(names)
        if not set(self.inside).intersection(wanted):
            return open_runner(path, target, wanted)
        model = io.load(path)
        return open_watched(model.proto, wanted, target, model.external)

    def exposed(self, path: Path, folder: Path) -> Path:
        """The model file, or a copy of it in a folder where judged tensors have to become
        outputs."""
        if not self.inside:
            return path
        model = io.load(path)
        return write_watched(model.proto, self.inside, folder / path.name, model.external)

    def in_both(self, other: onnx.GraphProto) -> "Judged":
        """The same for two models: without tensors inside where the other lacks one of them,
        and with the outputs that these stood for."""
        made = index.made_names(other.node)
        missing = [name for name in self.inside if name not in made]
        if not missing:
            return self
        names = tuple(name for name in self.names if name not in self.inside)
        note = (
            f"tensor {missing[0]!r} is in one of the models only: outputs are compared as they are"
        )
        return replace(self, names=names, inside=(), varying=(), notes=(note,))


def find(model: io.Model, target: Target, feeds: Sequence[Feeds] = ()) -> Judged:
    """The judged tensors of a model. `feeds` of different samples show which shapes depend on
    the data where the graph alone does not tell.

    Raises:
        ModelError: the model does not run.
        UsageError: there is nothing to judge.
    """
    graph = model.proto.graph
    fed = {spec.name for spec in model.inputs}
    found = _with_seen(model, target, dependence(graph, fed), feeds, fed)
    names = tuple(output.name for output in graph.output)
    if not found.shapes.intersection(names) and all(map(_is_float, graph.output)):
        return Judged(names, names)
    return _Search(graph, fed, found, _types(model, target, found)).judged()


def _is_float(output: onnx.ValueInfoProto) -> bool:
    return output.type.tensor_type.elem_type in FLOAT_TYPES


def _with_seen(
    model: io.Model,
    target: Target,
    found: Dependence,
    feeds: Sequence[Feeds],
    fed: Collection[str],
) -> Dependence:
    """With what a run of every feed shows: where an output has not always the same shape, all
    that could be the cause is taken for it."""
    graph = model.proto.graph
    names = [output.name for output in graph.output if output.name not in found.shapes]
    causes = {name: found.uncertain & _above(graph, name) for name in names}
    if len(feeds) < 2 or not any(causes.values()):
        return found
    runner = open_runner(model.path, target, names)
    shapes = [[np.shape(result) for result in runner(feed)] for feed in feeds]
    varying = [name for name, *seen in zip(names, *shapes, strict=True) if len(set(seen)) > 1]
    known = {cause for name in varying for cause in causes[name] or {name}}
    return dependence(graph, fed, known) if known else found


def _above(graph: onnx.GraphProto, name: str) -> set[str]:
    """The tensor, and all that it is computed from."""
    names = {name}
    for node in reversed(graph.node):
        if names.intersection(node.output):
            names.update(index.reads(node))
    return names


def _types(model: io.Model, target: Target, found: Dependence) -> dict[str, str]:
    """The runtime's words for the type of every tensor that depends on the data."""
    graph = model.proto.graph
    inside = [name for node in graph.node for name in node.output if name in found.values]
    names = [*(output.name for output in graph.output), *inside]
    runner = open_watched(model.proto, names, target, model.external)
    return {output.name: output.type for output in runner.session.get_outputs()}


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    """For every output of a graph, what is judged."""

    graph: onnx.GraphProto
    fed: Collection[str]
    found: Dependence
    types: Mapping[str, str]

    def judged(self) -> Judged:
        outputs = [output.name for output in self.graph.output]
        tensors = tuple(name for name in outputs if self.types[name].startswith("tensor("))
        own = [name for name in outputs if self._is_judged(name)]
        inside, notes = dict[str, None](), list[str]()
        for name in outputs:
            if name not in own:
                before, nodes = self._before(name)
                notes.append(self._note(name, before, nodes))
                inside |= dict.fromkeys(n for n in before if n not in own)
        numbers = [n for n in tensors if self.types[n] != TEXTS and n not in self.found.shapes]
        names = (*own, *inside) or tuple(numbers)
        if not names:
            raise UsageError(
                f"nothing of the model's outputs can be judged ({'; '.join(notes)}); export it "
                "with the scores among its outputs"
            )
        varying = tuple(name for name in tensors if name in self.found.shapes)
        return Judged(names, tensors, tuple(inside), varying, tuple(notes) if own or inside else ())

    def _is_judged(self, name: str) -> bool:
        return self.types.get(name) in FLOATS and name not in self.found.shapes

    def _before(self, name: str) -> tuple[list[str], list[onnx.NodeProto]]:
        """The last judged tensors that an output is computed from, and the nodes that read them,
        in the graph's order."""
        makers = index.makers(self.graph.node)
        tensors, readers, seen, todo = set[str](), list[onnx.NodeProto](), set[str](), [name]
        while todo:
            node = makers.get(todo.pop())
            if node is None:
                continue
            for read in index.reads(node):
                if read in self.fed or read not in self.found.values:
                    continue
                if self._is_judged(read):
                    tensors.add(read)
                    readers += [] if node in readers else [node]
                elif read not in seen:
                    seen.add(read)
                    todo.append(read)
        order = [made for node in self.graph.node for made in node.output]
        return [n for n in order if n in tensors], [n for n in self.graph.node if n in readers]

    def _note(self, name: str, before: Sequence[str], nodes: Sequence[onnx.NodeProto]) -> str:
        if not before:
            return f"output {name!r} ({self._kind(name)}) is not judged"
        shown = ", ".join(f"{operator(n)} {n.name or n.output[0]!r}" for n in nodes[:MAX_NAMED])
        more = f" and {len(nodes) - MAX_NAMED} more" if len(nodes) > MAX_NAMED else ""
        at = ", ".join(before)
        return f"output {name!r} ({self._kind(name)}) is judged at: {at} (before {shown}{more})"

    def _kind(self, name: str) -> str:
        kind = self.types[name]
        if name in self.found.shapes:
            return "its shape depends on the data"
        if not kind.startswith("tensor("):
            return "a sequence" if kind.startswith("seq") else "a map" if "map" in kind else kind
        return "texts" if kind == TEXTS else "whole numbers"
