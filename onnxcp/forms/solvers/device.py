"""Where the large products of a fit run: numpy on the CPU, or TensorLy's torch backend.

Only what grows with the kernel goes there: the kernel itself, its norm, and the products of
these with factors. Everything of the size of a factor or of R×R stays in numpy, in double
precision, so a fit is the same code on every device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxcp.errors import MissingPackage, ProviderError

Held = Any  # an array on a device: numpy's, or a torch tensor


@dataclass(frozen=True, slots=True)
class Device:
    """One row of what a fit may run on."""

    put: Callable[[np.ndarray], Held]
    take: Callable[[Held], np.ndarray]
    einsum: Callable[..., Held]


def _same(array: Any) -> Any:
    return array


CPU = Device(_same, _same, np.einsum)


def named(name: str) -> Device:
    """The device of a name in `options.fit.DEVICES`.

    Raises:
        MissingPackage: PyTorch is not installed.
        ProviderError: PyTorch has no such device.
    """
    if name == "cpu":
        return CPU
    where = "cuda" if name == "cuda" else "cpu"
    try:
        import torch
        from tensorly.backend.pytorch_backend import PyTorchBackend
    except ImportError as error:
        raise MissingPackage(
            f"<<fit_device={name}>>: PyTorch is not installed: pip install 'onnxcp[finetune]'"
        ) from error
    if where == "cuda" and not torch.cuda.is_available():
        raise ProviderError(
            "<<fit_device=cuda>>: PyTorch finds no CUDA device; check the driver (nvidia-smi) and "
            "that torch is a CUDA build, or leave it out to fit on the CPU"
        )

    def put(array: np.ndarray) -> Held:
        return PyTorchBackend.tensor(np.ascontiguousarray(array), device=where)

    return Device(put, PyTorchBackend.to_numpy, PyTorchBackend.einsum)
