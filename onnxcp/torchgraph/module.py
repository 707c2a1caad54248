"""An ONNX model as a torch module whose parameters are its initializers, by name.

Only weights ever travel back: the module runs the model's own nodes, one after the other, and
never writes a graph. Numbers that shapes are computed from stay on the CPU and are no part of
the module; all other stored floats are: parameters where they may be trained, and buffers
where they are the statistics of a batch normalization or lie in Constant nodes.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import onnx
import torch
from onnx import inliner
from torch import Tensor

from onnxcp.errors import DataError, UsageError
from onnxcp.graph.operators import drop_shadowing
from onnxcp.torchgraph.batch_folding import foldable, folded
from onnxcp.torchgraph.batch_statistics import moments, normalized, statistics
from onnxcp.torchgraph.node import Body, Node, Reader, opsets
from onnxcp.torchgraph.operators.table import compute, numbers, together
from onnxcp.torchgraph.support import refuse

MOMENTUM = 0.1  # torch's default: the share of a new batch in a running average


class Network(torch.nn.Module):
    """A model with its external data in memory, ready to be trained.

    `trainable` names the initializers, or outputs of Constant nodes, that may be; None is
    every initializer that is a weight. `train()` and `eval()` change nothing: dropout is
    the identity, and batch normalization uses stored statistics unless `use_batch_statistics`
    was called.

    Raises:
        UnsupportedError: nodes that torch can not compute here.
        UsageError: `trainable` names what is no weight.
    """

    def __init__(self, proto: onnx.ModelProto, trainable: Collection[str] | None = None) -> None:
        super().__init__()
        self.proto = _inlined(proto) if proto.functions else proto
        reader = Reader(opsets(self.proto))
        self._body = reader.body(self.proto.graph)
        refuse(self._body, reader, self.proto)
        self._statistics = statistics(self._body)
        self._foldable = foldable(self._body, self._statistics, reader.tensors)
        self._momentum: float | None = None
        self._on_cpu: dict[str, Tensor] = {}
        self._own(reader.tensors, trainable)
        stored = self._body.keys
        self.inputs = tuple(i.name for i in self.proto.graph.input if i.name not in stored)
        self.outputs = self._body.outputs
        self._freed = _last_reads(self._body)

    def _own(self, tensors: Mapping[str, Tensor], trainable: Collection[str] | None) -> None:
        """Make stored tensors parameters, buffers or, where they are only numbers, neither."""
        keys, counted = self._body.keys, _only_numbers(self._body)
        for key, tensor in tensors.items():
            if key in counted or not tensor.dtype.is_floating_point:
                self._on_cpu[key] = tensor
        floats = [name for name, key in keys.items() if key not in self._on_cpu]
        fixed = moments(self._body)
        weights = [name for name in floats if name not in fixed]
        listed = {t.name for t in self.proto.graph.initializer}
        chosen = listed.intersection(weights) if trainable is None else set(trainable)
        _refuse_no_weights(chosen, weights, fixed)
        self._names = {n: keys[n] for n in floats if n in listed or n in chosen}
        parameters = {keys[n]: n for n in weights if n in self._names}
        for key, tensor in tensors.items():
            if key in parameters:
                trained = torch.nn.Parameter(tensor, requires_grad=parameters[key] in chosen)
                self.register_parameter(key, trained)
            elif key not in self._on_cpu:
                self.register_buffer(key, tensor)

    def weights(self) -> dict[str, Tensor]:
        """The model's own float initializers by name, statistics included, as they are now:
        the module's own tensors, not copies."""
        return {name: getattr(self, key) for name, key in self._names.items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Overwrite initializers by name, in their own type and where they are.

        Raises:
            UsageError: a name is none of `weights()`, or a shape differs from the stored one.
        """
        own = self.weights()
        for name, tensor in weights.items():
            if name not in own:
                raise UsageError(f"weight {name!r}: the model has none of that name")
            if tensor.shape != own[name].shape:
                shapes = f"{tuple(tensor.shape)}, stored is {tuple(own[name].shape)}"
                raise UsageError(f"weight {name!r} has the shape {shapes}; give that shape")
        with torch.no_grad():
            for name, tensor in weights.items():
                own[name].copy_(tensor)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        held = next(iter((*self.parameters(), *self.buffers())), None)
        return torch.device("cpu") if held is None else held.device

    def forward(self, feeds: Mapping[str, Tensor], also: Sequence[str] = ()) -> tuple[Tensor, ...]:
        """All outputs in order, then the tensors named in `also`.

        Raises:
            DataError: an input is not fed, or something else is.
            ModelError: a node can not take what it is given.
            UsageError: `also` names no tensor of the main graph.
        """
        _refuse_wrong(self.inputs, feeds)
        wanted = (*self.outputs, *also)
        made = self._run(self._body, dict(feeds), frozenset(wanted))
        lacking = [name for name in wanted if name not in made]
        if lacking:
            raise UsageError(f"tensor {lacking[0]!r}: the model's main graph computes none of it")
        return tuple(made[name] for name in wanted)

    def _run(
        self, body: Body, known: dict[str, Tensor], kept: frozenset[str] | None
    ) -> dict[str, Tensor]:
        """Compute a body; what is read no more is let go, unless `kept` holds it or is None."""
        known |= {name: self._stored(key) for name, key in body.keys.items()}
        folds = self._folds(kept)
        for place, node in enumerate(body.nodes):
            made = self._computed(node, known, folds)
            known |= {n: y for n, y in zip(node.outputs, made, strict=False) if n}
            for name in self._freed[place] - kept if kept is not None else ():
                known.pop(name, None)
        return known

    def _stored(self, key: str) -> Tensor:
        return self._on_cpu[key] if key in self._on_cpu else getattr(self, key)

    def _folds(self, kept: frozenset[str] | None) -> Mapping[str, Node]:
        """The normalizations that convolutions do now, by what they read."""
        if kept is None or self._momentum is not None:
            return {}
        return {name: node for name, node in self._foldable.items() if name not in kept}

    def _computed(
        self, node: Node, known: dict[str, Tensor], folds: Mapping[str, Node]
    ) -> tuple[Tensor, ...]:
        inputs = [known[name] if name else None for name in node.inputs]
        if node.outputs[0] in folds:
            norm = folds[node.outputs[0]]
            inputs = folded(inputs, norm, [known[name] for name in norm.inputs[1:]])
        elif node.op == "BatchNormalization" and node.inputs[0] in folds:
            return (known[node.inputs[0]],)
        if node.op == "If":
            assert inputs[0] is not None
            body = node.bodies["then_branch" if inputs[0].item() else "else_branch"]
            made = self._run(body, dict(known), None)
            return tuple(made[name] for name in body.outputs)
        if self._momentum is not None and node.outputs[0] in self._statistics:
            return (normalized(node, together(node, inputs), self._momentum),)
        return compute(node, inputs)

    def use_batch_statistics(self, momentum: float = MOMENTUM) -> None:
        """From now on batch normalizations use their batch's statistics, and move the stored
        ones towards them by `momentum`, 0 to 1. Those whose statistics are computed, or shared
        with others, go on with what is stored."""
        self._momentum = momentum

    def use_stored_statistics(self) -> None:
        """As at first: batch normalizations are fixed scales and shifts."""
        self._momentum = None

    def recalibrate(self, batches: Iterable[Mapping[str, Tensor]]) -> int:
        """Replace the stored statistics by the average of those of these batches, all batch
        normalizations at once; how many batches there were. Without any nothing changes."""
        before, done = self._momentum, 0
        try:
            with torch.no_grad():
                for done, feeds in enumerate(batches, start=1):
                    self.use_batch_statistics(1 / done)
                    self(feeds)
        finally:
            self._momentum = before
        return done


def _inlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model without local functions."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    drop_shadowing(made)
    inlined: onnx.ModelProto = inliner.inline_local_functions(made)
    return inlined


def _refuse_no_weights(chosen: Collection[str], weights: list[str], fixed: set[str]) -> None:
    for name in sorted(set(chosen).difference(weights)):
        if name in fixed:
            raise UsageError(
                f"weight {name!r} is a statistic of a batch normalization, which is not trained; "
                "recalibrate it"
            )
        raise UsageError(
            f"weight {name!r}: the model's main graph stores no float tensor of that name; name "
            "an initializer that is no shape or scale"
        )


def _refuse_wrong(inputs: Collection[str], feeds: Mapping[str, Tensor]) -> None:
    for name in inputs:
        if name not in feeds:
            raise DataError(f"input {name!r} is not fed; the model takes {', '.join(inputs)}")
    for name in feeds:
        if name not in inputs:
            raise DataError(f"{name!r} is no input; the model takes {', '.join(inputs)}")


def _only_numbers(body: Body) -> set[str]:
    """Keys of stored tensors of which nothing is read but numbers, such as scales."""
    bodies = [body, *(b for n in body.all_nodes() for b in n.bodies.values())]
    counted: set[str] = set()
    others: set[str] = {name for b in bodies for name in b.outputs}
    for node in body.all_nodes():
        for place, name in enumerate(node.inputs):
            (counted if place in numbers(node) else others).add(name)
    return {key for b in bodies for n, key in b.keys.items() if n in counted - others}


def _last_reads(body: Body) -> tuple[frozenset[str], ...]:
    """For each node what is read by it and by none after it."""
    later: set[str] = set()
    freed = []
    for node in reversed(body.nodes):
        freed.append(frozenset(node.reads - later))
        later |= node.reads
    return tuple(reversed(freed))
