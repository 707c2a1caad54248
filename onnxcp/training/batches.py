"""Batches of samples as tensors on a device; the next ones are read while one is computed on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from onnxcp.data.samples import Samples
from onnxcp.training.augment import augmented
from onnxcp.training.recipe import Recipe

Tensors = Mapping[str, Tensor]
Batch = tuple[dict[str, Tensor], Tensor | None]  # feeds, labels


def steps(samples: Samples, recipe: Recipe) -> int:
    """The number of steps in one epoch: whole batches, or one smaller batch."""
    return max(1, len(samples) // recipe.batch_size)


def shuffled(samples: Samples, recipe: Recipe, epoch: int) -> Iterator[Batch]:
    """The whole batches of an epoch in random order, images augmented.

    The order and the augmentation depend only on the recipe's seed and the epoch.
    """
    order = np.random.default_rng((recipe.seed, epoch)).permutation(len(samples))
    generator = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
    size = min(recipe.batch_size, len(samples))
    picks = [order[i * size : (i + 1) * size].tolist() for i in range(steps(samples, recipe))]
    with ThreadPoolExecutor(1) as reader:
        waiting = [reader.submit(_read, samples, pick) for pick in picks[:2]]
        for index in range(len(picks)):
            feeds, labels = waiting.pop(0).result()
            if index + 2 < len(picks):
                waiting.append(reader.submit(_read, samples, picks[index + 2]))
            yield _on_device(feeds, recipe.device, recipe.augment, generator), labels


def in_order(samples: Samples, recipe: Recipe) -> Iterator[Batch]:
    """All samples in order, without augmentation; the last batch may be smaller."""
    for start in range(0, len(samples), recipe.batch_size):
        feeds, labels = _read(samples, range(start, min(start + recipe.batch_size, len(samples))))
        yield _on_device(feeds, recipe.device, (), torch.Generator()), labels


def in_parts(
    model: Callable[[Tensors, Sequence[str]], Sequence[Tensor]],
    feeds: Tensors,
    also: Sequence[str],
    size: int,
) -> list[Tensor]:
    """Outputs for any number of samples of a model that takes exactly `size` at once.

    `also` names further tensors to return after the outputs.
    """
    count, parts = len(next(iter(feeds.values()))), list[Sequence[Tensor]]()
    for start in range(0, count, size):
        rows = [min(row, count - 1) for row in range(start, start + size)]
        used = min(size, count - start)
        parts.append([y[:used] for y in model({n: x[rows] for n, x in feeds.items()}, also)])
    return [torch.cat(pieces) for pieces in zip(*parts, strict=True)]


def _read(samples: Samples, positions: Sequence[int]) -> Batch:
    feeds = samples.pick([samples.numbers[position] for position in positions])
    labels = None if samples.labels is None else torch.from_numpy(samples.labels[list(positions)])
    return {n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in feeds.items()}, labels


def _on_device(
    feeds: dict[str, Tensor], device: str, augment: tuple[str, ...], generator: torch.Generator
) -> dict[str, Tensor]:
    """Feeds on a device; images among them augmented and in channels-last memory format."""
    made = {}
    for name, values in feeds.items():
        if values.ndim == 4 and values.is_floating_point():
            values = augmented(values, augment, generator)
            values = values.contiguous(memory_format=torch.channels_last)
        made[name] = values.to(device)
    return made
