"""Batch normalizations folded into the convolutions before them, while statistics are fixed.

With stored statistics, a normalization scales and shifts channels, which the convolution's
weights can do too. On a CPU this saves memory traffic in the forward and backward pass.
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
    """The normalizations that can be folded, by the output of the convolution before them.

    Nothing else may read that output, and all other inputs must be stored in single precision, so
    that folding is as exact. `normalizations` are named by output.
    """
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
    """The inputs of a convolution that includes the normalization after it.

    `stored` are the normalization's scale, bias, mean and variance.
    """
    x, weight, *rest = inputs
    scale, bias, mean, var = stored
    assert weight is not None and scale is not None and bias is not None
    assert mean is not None and var is not None
    factor = scale * torch.rsqrt(var + norm.get("epsilon", EPSILON))
    before = rest[0] if rest else None
    shift = bias - mean * factor if before is None else bias + (before - mean) * factor
    return [x, weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), shift]
