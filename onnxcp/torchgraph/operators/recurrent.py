"""The LSTM that stands behind the convolutions of networks for sound and text."""

import torch
from torch import Tensor

from onnxcp.torchgraph.node import Node

ORDER = (0, 2, 3, 1)  # where torch's gates i f g o are among ONNX's i o f c


def lstm(
    node: Node,
    x: Tensor,
    weight: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    _: Tensor | None = None,
    hidden: Tensor | None = None,
    cell: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Time first, without peepholes, lengths or other activations: `refusal` says so before."""
    directions, size = weight.shape[0], recurrence.shape[-1]
    none = x.new_zeros(directions, x.shape[1], size)
    bias = weight.new_zeros(directions, 8 * size) if bias is None else bias
    runs = [
        _run(
            x,
            (none if hidden is None else hidden)[d],
            (none if cell is None else cell)[d],
            [_reordered(t) for t in (weight[d], recurrence[d], *bias[d].chunk(2))],
            backward=d == 1 or node.get("direction", "forward") == "reverse",
        )
        for d in range(directions)
    ]
    ys, hs, cs = zip(*runs, strict=True)
    return torch.stack(ys, 1), torch.stack(hs), torch.stack(cs)


def _run(
    x: Tensor, hidden: Tensor, cell: Tensor, weights: list[Tensor], *, backward: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction; its states lack the axis of directions."""
    state = (hidden.unsqueeze(0), cell.unsqueeze(0))
    read = x.flip(0) if backward else x
    y, h, c = torch.lstm(read, state, weights, True, 1, 0.0, False, False, False)
    return y.flip(0) if backward else y, h[0], c[0]


def _reordered(gates: Tensor) -> Tensor:
    parts = gates.chunk(4)
    return torch.cat([parts[i] for i in ORDER])


def refusal(node: Node) -> str | None:
    """What an LSTM asks for that is not covered."""
    plain = ["Sigmoid", "Tanh", "Tanh"] * 2
    functions = node.get("activations", None) or plain
    if [_text(f).lower() for f in functions] != [f.lower() for f in plain[: len(functions)]]:
        return "has other activations than Sigmoid and Tanh"
    if any(node.get(key, 0) for key in ("clip", "input_forget", "layout")):
        return "clips, couples its gates or has the batch first"
    if any(name for place, name in enumerate(node.inputs) if place in (4, 7)):
        return "has lengths of sequences or peepholes"
    return None


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
