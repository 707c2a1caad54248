"""LSTM, as used after the convolutions of networks for speech and text."""

import torch
from torch import Tensor

from onnxcp.torchgraph.node import Node

ORDER = (0, 2, 3, 1)  # positions of torch's gates i f g o among ONNX's i o f c


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
    """LSTM with x [time, N, features]; all outputs, hidden and cell states last.

    Without peepholes, sequence lengths and other activations, which `refusal` reports.
    """
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
    """One direction; its states do not have the axis of directions."""
    state = (hidden.unsqueeze(0), cell.unsqueeze(0))
    read = x.flip(0) if backward else x
    y, h, c = torch.lstm(read, state, weights, True, 1, 0.0, False, False, False)
    return y.flip(0) if backward else y, h[0], c[0]


def _reordered(gates: Tensor) -> Tensor:
    parts = gates.chunk(4)
    return torch.cat([parts[i] for i in ORDER])


def refusal(node: Node) -> str | None:
    """What an LSTM uses that is not covered; None if nothing."""
    plain = ["Sigmoid", "Tanh", "Tanh"] * 2
    functions = node.get("activations", None) or plain
    if [_text(f).lower() for f in functions] != [f.lower() for f in plain[: len(functions)]]:
        return "has other activations than Sigmoid and Tanh"
    if any(node.get(key, 0) for key in ("clip", "input_forget", "layout")):
        return "clips, couples its gates or has the batch first"
    if any(name for index, name in enumerate(node.inputs) if index in (4, 7)):
        return "has sequence lengths or peepholes"
    return None


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
