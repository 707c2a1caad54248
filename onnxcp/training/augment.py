"""Changes of images: mirrored, moved by a few pixels, and mixed with each other.

Mixed images show nothing, but the original has an answer to them too, and one that says more than
its certain answers to images it was trained on (Beyer et al. 2022, arXiv:2106.05237).
"""

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
    if "crop" in names:
        images = _moved(images, generator)
    return _mixed(images, generator) if "mix" in names else images


def _mixed(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each with a share of up to a half of another one (Zhang et al. 2018, arXiv:1710.09412)."""
    others = images[torch.randperm(len(images), generator=generator).to(images.device)]
    share = torch.rand(len(images), 1, 1, 1, generator=generator).to(images.device) / 2
    return torch.lerp(images, others, share.to(images.dtype))


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
