"""All that a training needs to go on, in memory and in a file."""

import hashlib
import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onnxcp.errors import WorkError
from onnxcp.storage import atomic_write
from onnxcp.training.batches import Tensors

NAME = "training.pt"


@dataclass(frozen=True, slots=True)
class Epoch:
    """Means over its steps and over the held-out samples; `agreement` with the original's
    strongest class there, None where outputs are no class scores."""

    number: int
    loss: float
    held_out: float
    agreement: float | None


@dataclass(slots=True, eq=False)
class State:
    """Between two epochs. `average` is of what is trained, `best` all that may change, as it was
    in the epoch that held-out samples liked best."""

    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: dict[str, Tensor]
    best: dict[str, Tensor]
    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    stopped: str | None = None


def copies(tensors: Tensors) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def save(folder: Path, state: State, weights: Tensors, about: str) -> None:
    """Write the checkpoint, which at every moment is the old one or the new one. `about` tells
    one training from another."""
    document = {
        "weights": copies(weights),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "average": state.average,
        "best": state.best,
        "epochs": [asdict(epoch) for epoch in state.epochs],
        "best_epoch": state.best_epoch,
        "stopped": state.stopped,
        "about": about,
    }
    content = io.BytesIO()
    torch.save(document, content)
    with atomic_write.whole(folder / NAME) as stream:
        stream.write(hashlib.sha256(content.getbuffer()).digest())
        stream.write(content.getbuffer())


def load(folder: Path, state: State, about: str) -> Tensors | None:
    """Put a state back as a training left it, and give the weights it had then; None if it left
    nothing.

    Raises:
        WorkError: it was another training, or the checkpoint is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = torch.load(_content(path), weights_only=True)
        if found["about"] == about:
            state.optimizer.load_state_dict(found["optimizer"])
            state.scaler.load_state_dict(found["scaler"])
            state.average, state.best = found["average"], found["best"]
            state.epochs = [Epoch(**epoch) for epoch in found["epochs"]]
            state.best_epoch, state.stopped = found["best_epoch"], found["stopped"]
            weights: Tensors = found["weights"]
            return weights
    except Exception as error:  # a pickle that is none fails in any way it likes
        raise WorkError(
            f"{path}: damaged, or of another model ({type(error).__name__}); remove it to train "
            "from the start"
        ) from error
    raise WorkError(
        f"{path}: holds a training with other settings or data; give the same, or another "
        "<<work_dir>>"
    )


def _content(path: Path) -> io.BytesIO:
    """What a checkpoint holds behind its hash.

    Raises:
        ValueError: it is not what the hash is of.
    """
    stored = path.read_bytes()
    size = hashlib.sha256().digest_size
    if hashlib.sha256(stored[size:]).digest() != stored[:size]:
        raise ValueError("not what its hash is of")
    return io.BytesIO(stored[size:])
