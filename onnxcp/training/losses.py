"""Distillation losses: the distance of the student's outputs from the teacher's.

For class scores this is the Kullback–Leibler divergence at a distillation temperature (Hinton et
al. 2015, arXiv:1503.02531), else the squared error relative to the teacher's outputs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

TINY = 1e-12


def are_scores(output: Tensor) -> bool:
    """Whether an output holds class scores: one row per sample and at least two classes."""
    return bool(output.ndim >= 2 and output.shape[1] > 1 and output[0].numel() == output.shape[1])


def divergence(
    student: Tensor, teacher: Tensor, temperature: float, *, are_probabilities: bool
) -> Tensor:
    """KL(teacher ‖ student) over classes at a temperature, times its square, mean over samples.

    The square keeps the size of gradients. `are_probabilities` if outputs are not scores. Double
    precision, because the logs of two almost uniform distributions differ little.
    """
    student_scores, teacher_scores = (
        _scores(output, are_probabilities=are_probabilities) / temperature
        for output in (student, teacher)
    )
    logs = functional.log_softmax(student_scores, 1)
    divergence = functional.kl_div(
        logs, functional.log_softmax(teacher_scores, 1), log_target=True, reduction="batchmean"
    )
    return (divergence * temperature**2).float()


def _scores(output: Tensor, *, are_probabilities: bool) -> Tensor:
    flat = output.reshape(len(output), -1).double()
    return flat.clamp_min(TINY).log() if are_probabilities else flat


def distance(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """The mean over tensors of ‖student − teacher‖² / ‖teacher‖²."""
    parts = [
        (a.float() - b.float()).square().sum() / b.float().square().sum().clamp_min(TINY)
        for a, b in zip(student, teacher, strict=True)
    ]
    return torch.stack(parts).mean()


def sensitivity(stages: Sequence[Tensor]) -> Tensor:
    """The expected squared change of a chain's kernel per unit variance of noise on its weights.

    Σ_n I_n Σ_r Π_{m≠n} ‖u_r^(m)‖² (Phan et al. 2020, arXiv:2008.05441). The last stage stores its
    terms as columns, the others as rows.
    """
    *others, last = (stage.float().flatten(1) for stage in stages)
    energy = [part.square().sum(1) for part in others] + [last.square().sum(0)]
    sizes = [part.shape[1] for part in others] + [last.shape[0]]
    total = torch.zeros(())
    for index, size in enumerate(sizes):
        product = torch.stack([e for n, e in enumerate(energy) if n != index]).prod(0)
        total = total + size * product.sum()
    return total
