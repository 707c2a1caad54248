"""Batch normalizations folded into the convolutions before them, for as long as they are fixed.

With stored statistics one scales and shifts channels, which the convolution's weights can do as
well. On a CPU that saves passes over memory, there and back.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from onnxcp.torchgraph.node import Body, Node
from onnxcp.torchgraph.operators.normalization import EPSILON


def foldable(
    body: Body, normalizations: Collection[str], tensors: Mapping[str, Tensor]
) -> dict[str, Node]:
    """Of these normalizations, named by output, those that can be folded, by the output of the
    convolution before: nothing else reads that, and all they take besides is stored, in single
    precision, which folding leaves as exact as it is."""
    reads = Counter(name for node in body.nodes for name in node.reads)
    reads.update(body.outputs)
    single = {name for name, key in body.keys.items() if tensors[key].dtype == torch.float32}
    convolved = {
        n.outputs[0] for n in body.nodes if n.op == "Conv" and single.issuperset(n.inputs[1:])
    }
    return {
        node.inputs[0]: node
        for node in body.nodes
        if node.outputs[0] in normalizations
        and node.inputs[0] in convolved
        and reads[node.inputs[0]] == 1
        and single.issuperset(node.inputs[1:])
    }


def folded(
    inputs: Sequence[Tensor | None], norm: Node, stored: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The inputs of a convolution that also does what a normalization would, which takes the
    `stored` scale, bias, mean and variance."""
    x, weight, *rest = inputs
    scale, bias, mean, var = stored
    assert weight is not None and scale is not None and bias is not None
    assert mean is not None and var is not None
    factor = scale * torch.rsqrt(var + norm.get("epsilon", EPSILON))
    before = rest[0] if rest else None
    shift = bias - mean * factor if before is None else bias + (before - mean) * factor
    return [x, weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), shift]
