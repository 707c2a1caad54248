"""Batches of samples as tensors on a device, read while others are computed on."""

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
    """Of one epoch: whole batches, or one smaller one."""
    return max(1, len(samples) // recipe.batch_size)


def shuffled(samples: Samples, recipe: Recipe, epoch: int) -> Iterator[Batch]:
    """Whole batches in an order of the epoch's own, images augmented."""
    order = np.random.default_rng((recipe.seed, epoch)).permutation(len(samples))
    generator = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
    size = min(recipe.batch_size, len(samples))
    picks = [order[i * size : (i + 1) * size].tolist() for i in range(steps(samples, recipe))]
    with ThreadPoolExecutor(1) as reader:
        waiting = [reader.submit(_read, samples, pick) for pick in picks[:2]]
        for place in range(len(picks)):
            feeds, labels = waiting.pop(0).result()
            if place + 2 < len(picks):
                waiting.append(reader.submit(_read, samples, picks[place + 2]))
            yield _placed(feeds, recipe.device, recipe.augment, generator), labels


def in_order(samples: Samples, recipe: Recipe) -> Iterator[Batch]:
    """All samples, as they are."""
    for start in range(0, len(samples), recipe.batch_size):
        feeds, labels = _read(samples, range(start, min(start + recipe.batch_size, len(samples))))
        yield _placed(feeds, recipe.device, (), torch.Generator()), labels


def in_parts(
    model: Callable[[Tensors, Sequence[str]], Sequence[Tensor]],
    feeds: Tensors,
    also: Sequence[str],
    size: int,
) -> list[Tensor]:
    """Outputs of a model that takes `size` samples at once, no more and no fewer."""
    count, parts = len(next(iter(feeds.values()))), list[Sequence[Tensor]]()
    for start in range(0, count, size):
        rows = [min(row, count - 1) for row in range(start, start + size)]
        left = min(size, count - start)
        parts.append([y[:left] for y in model({n: x[rows] for n, x in feeds.items()}, also)])
    return [torch.cat(pieces) for pieces in zip(*parts, strict=True)]


def _read(samples: Samples, places: Sequence[int]) -> Batch:
    feeds = samples.pick([samples.numbers[place] for place in places])
    labels = None if samples.labels is None else torch.from_numpy(samples.labels[list(places)])
    return {n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in feeds.items()}, labels


def _placed(
    feeds: dict[str, Tensor], device: str, augment: tuple[str, ...], generator: torch.Generator
) -> dict[str, Tensor]:
    """Feeds on a device, images among them augmented and laid out channels last."""
    made = {}
    for name, values in feeds.items():
        if values.ndim == 4 and values.is_floating_point():
            values = augmented(values, augment, generator)
            values = values.contiguous(memory_format=torch.channels_last)
        made[name] = values.to(device)
    return made
