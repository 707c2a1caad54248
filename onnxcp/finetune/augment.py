"""Simple changes of images that leave what they show: mirrored, and moved by a few pixels."""

import torch
from torch import Tensor
from torch.nn import functional

MOVED = 8  # of the side: by at most one part of this many an image is moved


def augmented(images: Tensor, names: tuple[str, ...], generator: torch.Generator) -> Tensor:
    """Images [N, channels, height, width] after the named changes, each drawn for itself."""
    if "flip" in names:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(
            mirrored[:, None, None, None].to(images.device), images.flip(3), images
        )
    return _moved(images, generator) if "crop" in names else images


def _moved(images: Tensor, generator: torch.Generator) -> Tensor:
    """Moved by up to an eighth of the side; zeros, the mean of normalized images, come in."""
    count, _, height, width = images.shape
    down, right = height // MOVED, width // MOVED
    padded = functional.pad(images, (right, right, down, down))
    tops = torch.randint(2 * down + 1, (count,), generator=generator).to(images.device)
    lefts = torch.randint(2 * right + 1, (count,), generator=generator).to(images.device)
    rows = tops[:, None] + torch.arange(height, device=images.device)
    columns = lefts[:, None] + torch.arange(width, device=images.device)
    number = torch.arange(count, device=images.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[number, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)
