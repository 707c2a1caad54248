"""What training brings down: the distance from what the original gives.

For class scores the Kullback–Leibler divergence at a temperature (Hinton et al. 2015,
arXiv:1503.02531), else the squared error relative to the size of what the original gives.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

TINY = 1e-12


def are_scores(output: Tensor) -> bool:
    """Whether an output holds scores of classes: one row a sample, two classes or more."""
    return bool(output.ndim >= 2 and output.shape[1] > 1 and output[0].numel() == output.shape[1])


def divergence(student: Tensor, teacher: Tensor, temperature: float, *, soft: bool) -> Tensor:
    """KL of the teacher's distribution over classes from the student's, both at a temperature,
    times its square, so that gradients keep their size. `soft`: they are probabilities already.
    In double precision: where both are all but flat little is left of the difference of logs.
    """
    given, wanted = (_scores(x, soft=soft) / temperature for x in (student, teacher))
    logs = functional.log_softmax(given, 1)
    found = functional.kl_div(
        logs, functional.log_softmax(wanted, 1), log_target=True, reduction="batchmean"
    )
    return (found * temperature**2).float()


def _scores(output: Tensor, *, soft: bool) -> Tensor:
    flat = output.reshape(len(output), -1).double()
    return flat.clamp_min(TINY).log() if soft else flat


def distance(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean over tensors of ‖student − teacher‖² / ‖teacher‖²."""
    parts = [
        (a.float() - b.float()).square().sum() / b.float().square().sum().clamp_min(TINY)
        for a, b in zip(student, teacher, strict=True)
    ]
    return torch.stack(parts).mean()


def sensitivity(stages: Sequence[Tensor]) -> Tensor:
    """Expected squared change of a chain's kernel per unit variance of noise on its weights,
    Σ_n I_n Σ_r Π_{m≠n} ‖u_r^(m)‖² (Phan et al. 2020, arXiv:2008.05441). The last stage of a
    chain stores its terms as columns, the others as rows."""
    *others, last = (stage.float().flatten(1) for stage in stages)
    energy = [part.square().sum(1) for part in others] + [last.square().sum(0)]
    sizes = [part.shape[1] for part in others] + [last.shape[0]]
    found = torch.zeros(())
    for place, size in enumerate(sizes):
        rest = torch.stack([e for n, e in enumerate(energy) if n != place]).prod(0)
        found = found + size * rest.sum()
    return found
