"""Augmentation of images: mirrored, shifted by a few pixels, and mixed with each other.

Mixed images show nothing real, but the original's outputs for them carry more information than
its confident outputs for training images (Beyer et al. 2022, arXiv:2106.05237).
"""

import torch
from torch import Tensor
from torch.nn import functional

SHIFT_PARTS = 8  # an image is shifted by at most 1/8 of its side


def augmented(images: Tensor, names: tuple[str, ...], generator: torch.Generator) -> Tensor:
    """Images [N, channels, height, width] after the named changes, drawn for each image."""
    if "flip" in names:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(
            mirrored[:, None, None, None].to(images.device), images.flip(3), images
        )
    if "crop" in names:
        images = _shifted(images, generator)
    return _mixed(images, generator) if "mix" in names else images


def _mixed(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image mixed with up to a half of another (Zhang et al. 2018, arXiv:1710.09412)."""
    others = images[torch.randperm(len(images), generator=generator).to(images.device)]
    share = torch.rand(len(images), 1, 1, 1, generator=generator).to(images.device) / 2
    return torch.lerp(images, others, share.to(images.dtype))


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images shifted by up to an eighth of the side, filled with zeros, the normalized mean."""
    count, _, height, width = images.shape
    down, right = height // SHIFT_PARTS, width // SHIFT_PARTS
    padded = functional.pad(images, (right, right, down, down))
    tops = torch.randint(2 * down + 1, (count,), generator=generator).to(images.device)
    lefts = torch.randint(2 * right + 1, (count,), generator=generator).to(images.device)
    rows = tops[:, None] + torch.arange(height, device=images.device)
    columns = lefts[:, None] + torch.arange(width, device=images.device)
    number = torch.arange(count, device=images.device)[:, None, None]
    shifted = padded.permute(0, 2, 3, 1)[number, rows[:, :, None], columns[:, None, :]]
    return shifted.permute(0, 3, 1, 2)
