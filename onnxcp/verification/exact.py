"""The check that a model after exact passes computes the same as before.

Nodes that both models share, byte for byte, need no check. Every other tensor in both models is
computed twice from the same values: by its nodes now, and by its nodes in the original, cut out at
the tensors that both models have. This shows the rounding of each place alone, without the
amplification by later layers, so that the limit is that of one layer.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import onnx

from onnxcp.graph.constants import Constants
from onnxcp.graph.index import makers, reads
from onnxcp.graph.input_specs import Feeds
from onnxcp.runtime.providers import Target
from onnxcp.verification.layerwise import Part, of_parts

# relative L2 of one place: sums of thousands of terms round to 1e-6 of their size in float32, and
# to 1e-3 in float16; what cancels in them may be ten times that (a heuristic)
LIMIT, HALF_LIMIT = 1e-5, 1e-2


@dataclass(frozen=True, slots=True)
class Proof:
    """The relative L2 difference of each changed tensor from the original's nodes, and its limit.

    `failures` name what is not proven.
    """

    errors: dict[str, float]
    tolerance: float
    failures: tuple[str, ...]

    @property
    def largest(self) -> float:
        return max(self.errors.values(), default=0.0)


def prove(
    original: onnx.ModelProto, changed: onnx.ModelProto, feeds: Iterable[Feeds], target: Target
) -> Proof:
    """Compare a changed model with the original wherever they differ.

    Raises:
        OnnxcpError: a model does not run.
    """
    parts, failures = _differing(original, changed)
    tolerance = HALF_LIMIT if _is_half(original) else LIMIT
    if failures or not parts:
        return Proof({}, tolerance, failures)
    errors = of_parts(parts, changed, target.exact, feeds)
    wrong = [
        f"tensor {name!r} is not what it was: relative L2 error {error:.2g} exceeds {tolerance:.2g}"
        for name, error in errors.items()
        if not error <= tolerance
    ]
    return Proof(errors, tolerance, (*failures, *wrong))


def _is_half(proto: onnx.ModelProto) -> bool:
    return any(t.data_type == onnx.TensorProto.FLOAT16 for t in proto.graph.initializer)


def _differing(
    original: onnx.ModelProto, changed: onnx.ModelProto
) -> tuple[list[Part], tuple[str, ...]]:
    """The original's nodes for the tensors that other nodes compute now, and static failures."""
    before, now = makers(original.graph.node), makers(changed.graph.node)
    stored = {t.name: t for t in original.graph.initializer}
    kept = {t.name: t for t in changed.graph.initializer}
    lost = [o.name for o in changed.graph.output if o.name in before and o.name not in now]
    failures = [
        *(f"output {name!r} is made no more" for name in lost),
        *(f"weight {n!r} has other values" for n in kept.keys() & stored if kept[n] != stored[n]),
    ]
    known = {*now, *(i.name for i in changed.graph.input)}
    constants = Constants.of(original)
    parts = [
        _part(name, before, known, constants)
        for name, node in now.items()
        if name in before and node != before[name] and name not in constants.names
    ]
    return parts, tuple(failures)


def _part(
    output: str, before: dict[str, onnx.NodeProto], known: set[str], constants: Constants
) -> Part:
    """The nodes of the original between a tensor and the tensors that both models have."""
    nodes, waiting, fed = dict[int, onnx.NodeProto](), [output], dict[str, None]()
    tensors = dict[str, onnx.TensorProto]()
    while waiting:
        name = waiting.pop()
        if name != output and name in constants.names:
            tensor = constants.find(name)
            if tensor is not None:
                tensors[name] = _named(tensor, name)
                continue
        if name != output and name in known:
            fed[name] = None
            continue
        node = before[name]
        if id(node) not in nodes:
            nodes[id(node)] = node
            waiting += reads(node)
    order = {id(node): place for place, node in enumerate(constants.makers.values())}
    ordered = sorted(nodes.values(), key=lambda node: order[id(node)])
    return Part(output, tuple(ordered), tuple(tensors.values()), tuple(fed))


def _named(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    if tensor.name == name:
        return tensor
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy
