"""Batch normalizations with the statistics of the batch, and the update of stored statistics."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from onnxcp.errors import DataError
from onnxcp.torchgraph.node import Body, Node
from onnxcp.torchgraph.operators.normalization import EPSILON


def moments(body: Body) -> set[str]:
    """Names of all tensors that are a mean or a variance, also through Identity nodes."""
    sources = {n.outputs[0]: n.inputs[0] for n in body.all_nodes() if n.op == "Identity"}
    normalizations = (n for n in body.all_nodes() if n.op == "BatchNormalization")
    names = {name for node in normalizations for name in node.inputs[3:5]}
    while more := {sources[name] for name in names if name in sources} - names:
        names |= more
    return names


def statistics(body: Body) -> dict[str, tuple[str, str]]:
    """Names of the mean and variance of batch normalizations, by the normalization's output.

    Only those whose statistics are stored in the main graph and not shared.
    """
    reads = Counter(name for node in body.all_nodes() for name in node.inputs)
    reads.update(body.outputs)
    return {
        node.outputs[0]: (node.inputs[3], node.inputs[4])
        for node in body.nodes
        if node.op == "BatchNormalization"
        and all(name in body.keys and reads[name] == 1 for name in node.inputs[3:5])
    }


def normalized(node: Node, inputs: Sequence[Tensor | None], momentum: float) -> Tensor:
    """The output with the batch's statistics; updates the stored ones by `momentum`, 0 to 1.

    As in PyTorch, the stored variance is unbiased.

    Raises:
        DataError: the batch has only one value per channel.
    """
    x, scale, bias, mean, var = (t for t in inputs if t is not None)
    if x.numel() == x.shape[1]:
        raise DataError(
            f"{node.where}: a batch with one value per channel has no variance; give more samples "
            "at once"
        )
    wide = torch.promote_types(x.dtype, torch.float32)
    means, vars_ = (t.detach().to(wide, copy=True) for t in (mean, var))
    factors = {"weight": scale.to(wide), "bias": bias.to(wide)}
    how = {"training": True, "momentum": momentum, "eps": node.get("epsilon", EPSILON)}
    y = functional.batch_norm(x.to(wide), means, vars_, **factors, **how)
    with torch.no_grad():
        mean.copy_(means)
        var.copy_(vars_)
    return y.to(x.dtype)
