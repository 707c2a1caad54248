"""The state of a training run, in memory and in a checkpoint file."""

import hashlib
import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onnxcp.errors import WorkError
from onnxcp.results import EpochRecord
from onnxcp.storage import atomic_write
from onnxcp.training.batches import Tensors

NAME = "training.pt"


@dataclass(slots=True, eq=False)
class State:
    """The state between two epochs.

    `average` holds the averaged parameters. `best` holds all tensors that training may change,
    from the epoch with the least validation loss.
    """

    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: dict[str, Tensor]
    best: dict[str, Tensor]
    epochs: list[EpochRecord] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str | None = None


def copies(tensors: Tensors) -> dict[str, Tensor]:
    """Copies of tensors, without gradients."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def save(folder: Path, state: State, weights: Tensors, identity: str) -> None:
    """Write the checkpoint atomically. `identity` distinguishes this training from others."""
    document = {
        "weights": copies(weights),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "average": state.average,
        "best": state.best,
        "epochs": [asdict(epoch) for epoch in state.epochs],
        "best_epoch": state.best_epoch,
        "stopped": state.stopped,
        "about": identity,
    }
    content = io.BytesIO()
    torch.save(document, content)
    with atomic_write.whole(folder / NAME) as stream:
        stream.write(hashlib.sha256(content.getbuffer()).digest())
        stream.write(content.getbuffer())


def load(folder: Path, state: State, identity: str) -> Tensors | None:
    """Restore a state from the checkpoint and return its weights; None if there is none.

    Raises:
        WorkError: the checkpoint is of another training, or is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        checkpoint: dict[str, Any] = torch.load(_content(path), weights_only=True)
        if checkpoint["about"] == identity:
            state.optimizer.load_state_dict(checkpoint["optimizer"])
            state.scaler.load_state_dict(checkpoint["scaler"])
            state.average, state.best = checkpoint["average"], checkpoint["best"]
            state.epochs = [EpochRecord(**epoch) for epoch in checkpoint["epochs"]]
            state.best_epoch, state.stopped = checkpoint["best_epoch"], checkpoint["stopped"]
            weights: Tensors = checkpoint["weights"]
            return weights
    except Exception as error:  # a damaged pickle can raise anything
        raise WorkError(
            f"{path}: damaged, or of another model ({type(error).__name__}); remove it to train "
            "from the start"
        ) from error
    raise WorkError(
        f"{path}: holds a training with other settings or data; use the same ones, or another "
        "<<work_dir>>"
    )


def _content(path: Path) -> io.BytesIO:
    """The content of a checkpoint, after the hash it starts with.

    Raises:
        ValueError: the content does not match the hash.
    """
    stored = path.read_bytes()
    size = hashlib.sha256().digest_size
    if hashlib.sha256(stored[size:]).digest() != stored[:size]:
        raise ValueError("the content does not match its hash")
    return io.BytesIO(stored[size:])
