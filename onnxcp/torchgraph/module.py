"""An ONNX model as a PyTorch module; its parameters are the model's initializers, by name.

The module runs the model's nodes in order and never writes a graph; only weights are read back.
Numbers from which shapes are computed stay on the CPU and are not part of the module. All other
stored floats are: as parameters, or as buffers if they are batch normalization statistics or
values of Constant nodes.
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
    """A model, with its external data in memory, as a module that can be trained.

    `trainable` names initializers or outputs of Constant nodes; None means every initializer that
    is a weight. `train()` and `eval()` change nothing: dropout is the identity, and batch
    normalization uses stored statistics unless `use_batch_statistics` was called.

    Raises:
        UnsupportedError: PyTorch cannot compute some nodes.
        UsageError: `trainable` names a tensor that is not a weight.
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
        self._last_reads = _last_reads(self._body)

    def _own(self, tensors: Mapping[str, Tensor], trainable: Collection[str] | None) -> None:
        """Register stored tensors as parameters or buffers; those read as numbers as neither."""
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
        """The current float initializers by name, statistics included; not copies."""
        return {name: getattr(self, key) for name, key in self._names.items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Overwrite initializers by name, keeping their type and device.

        Raises:
            UsageError: a name is not in `weights()`, or a shape differs from the stored one.
        """
        own = self.weights()
        for name, tensor in weights.items():
            if name not in own:
                raise UsageError(f"weight {name!r}: the model has no weight of that name")
            if tensor.shape != own[name].shape:
                shapes = f"{tuple(tensor.shape)}, not {tuple(own[name].shape)} as in the model"
                raise UsageError(f"weight {name!r} has the shape {shapes}; give that shape")
        with torch.no_grad():
            for name, tensor in weights.items():
                own[name].copy_(tensor)

    @property
    def device(self) -> torch.device:
        """The device of the weights; the CPU without weights."""
        tensor = next(iter((*self.parameters(), *self.buffers())), None)
        return torch.device("cpu") if tensor is None else tensor.device

    def forward(self, feeds: Mapping[str, Tensor], also: Sequence[str] = ()) -> tuple[Tensor, ...]:
        """All outputs in order, then the tensors named in `also`.

        Raises:
            DataError: an input is missing, or a name is not an input.
            ModelError: a node cannot compute its inputs.
            UsageError: `also` names something that is not a tensor of the main graph.
        """
        _refuse_wrong(self.inputs, feeds)
        requested = (*self.outputs, *also)
        tensors = self._run(self._body, dict(feeds), frozenset(requested))
        missing = [name for name in requested if name not in tensors]
        if missing:
            raise UsageError(f"tensor {missing[0]!r}: the model's main graph does not compute it")
        return tuple(tensors[name] for name in requested)

    def _run(
        self, body: Body, tensors: dict[str, Tensor], kept: frozenset[str] | None
    ) -> dict[str, Tensor]:
        """All tensors of a body; those no longer read are freed unless `kept`; None keeps all."""
        tensors |= {name: self._stored(key) for name, key in body.keys.items()}
        folds = self._folds(kept)
        for index, node in enumerate(body.nodes):
            outputs = self._computed(node, tensors, folds)
            tensors |= {n: y for n, y in zip(node.outputs, outputs, strict=False) if n}
            for name in self._last_reads[index] - kept if kept is not None else ():
                tensors.pop(name, None)
        return tensors

    def _stored(self, key: str) -> Tensor:
        return self._on_cpu[key] if key in self._on_cpu else getattr(self, key)

    def _folds(self, kept: frozenset[str] | None) -> Mapping[str, Node]:
        """The normalizations that are folded now, by the output of the convolution before."""
        if kept is None or self._momentum is not None:
            return {}
        return {name: node for name, node in self._foldable.items() if name not in kept}

    def _computed(
        self, node: Node, tensors: dict[str, Tensor], folds: Mapping[str, Node]
    ) -> tuple[Tensor, ...]:
        inputs = [tensors[name] if name else None for name in node.inputs]
        if node.outputs[0] in folds:
            norm = folds[node.outputs[0]]
            inputs = folded(inputs, norm, [tensors[name] for name in norm.inputs[1:]])
        elif node.op == "BatchNormalization" and node.inputs[0] in folds:
            return (tensors[node.inputs[0]],)
        if node.op == "If":
            assert inputs[0] is not None
            body = node.bodies["then_branch" if inputs[0].item() else "else_branch"]
            results = self._run(body, dict(tensors), None)
            return tuple(results[name] for name in body.outputs)
        if self._momentum is not None and node.outputs[0] in self._statistics:
            return (normalized(node, together(node, inputs), self._momentum),)
        return compute(node, inputs)

    def use_batch_statistics(self, momentum: float = MOMENTUM) -> None:
        """Use the batch's statistics from now on, and update the stored ones by `momentum`, 0 to 1.

        Normalizations whose statistics are computed or shared keep using the stored ones.
        """
        self._momentum = momentum

    def use_stored_statistics(self) -> None:
        """Use stored statistics again, as initially: normalizations are fixed scales and shifts."""
        self._momentum = None

    def recalibrate(self, batches: Iterable[Mapping[str, Tensor]]) -> int:
        """Replace all stored statistics by the averages over these batches.

        Returns the number of batches; without batches nothing changes.
        """
        before, count = self._momentum, 0
        try:
            with torch.no_grad():
                for count, feeds in enumerate(batches, start=1):
                    self.use_batch_statistics(1 / count)
                    self(feeds)
        finally:
            self._momentum = before
        return count


def _inlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its local functions inlined."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    drop_shadowing(copy)
    inlined: onnx.ModelProto = inliner.inline_local_functions(copy)
    return inlined


def _refuse_no_weights(chosen: Collection[str], weights: list[str], fixed: set[str]) -> None:
    for name in sorted(set(chosen).difference(weights)):
        if name in fixed:
            raise UsageError(
                f"weight {name!r} is a statistic of a batch normalization and cannot be trained; "
                "recalibrate it"
            )
        raise UsageError(
            f"weight {name!r}: the model's main graph stores no float tensor of that name; name "
            "an initializer that is not a shape or a scale"
        )


def _refuse_wrong(inputs: Collection[str], feeds: Mapping[str, Tensor]) -> None:
    for name in inputs:
        if name not in feeds:
            raise DataError(f"input {name!r} is missing; the model takes {', '.join(inputs)}")
    for name in feeds:
        if name not in inputs:
            raise DataError(f"{name!r} is not an input; the model takes {', '.join(inputs)}")


def _only_numbers(body: Body) -> set[str]:
    """Keys of stored tensors that are only read as Python numbers, such as scales."""
    bodies = [body, *(b for n in body.all_nodes() for b in n.bodies.values())]
    read_as_numbers: set[str] = set()
    read_as_tensors: set[str] = {name for b in bodies for name in b.outputs}
    for node in body.all_nodes():
        for index, name in enumerate(node.inputs):
            (read_as_numbers if index in numbers(node) else read_as_tensors).add(name)
    return {
        key for b in bodies for n, key in b.keys.items() if n in read_as_numbers - read_as_tensors
    }


def _last_reads(body: Body) -> tuple[frozenset[str], ...]:
    """For each node, the names that no later node reads."""
    later: set[str] = set()
    last_reads = []
    for node in reversed(body.nodes):
        last_reads.append(frozenset(node.reads - later))
        later |= node.reads
    return tuple(reversed(last_reads))
