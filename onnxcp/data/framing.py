"""How an image fills a model's input: resized, cropped, or squashed where that is allowed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxcp.data.images import decoded, resized, size_of
from onnxcp.data.preprocess import Preprocess
from onnxcp.errors import DataError
from onnxcp.graph.input_specs import TensorSpec

MOST_SQUASHED = 0.1  # by which one side may change more than the other without being asked for


@dataclass(frozen=True, slots=True)
class Frame:
    """The model's own size (height, width), where fixed, and what it takes of an image."""

    size: tuple[int, int] | None
    channels: int | None
    recipe: Preprocess

    @classmethod
    def of(cls, spec: TensorSpec, recipe: Preprocess) -> "Frame":
        """The frame of an input. Raises DataError for one that takes no images."""
        if spec.dims is None or len(spec.dims) != 4:
            raise DataError(f"images do not fit the input {spec.text()}; give an .npz file")
        is_last = recipe.layout == "NHWC"
        height, width = spec.dims[1:3] if is_last else spec.dims[2:4]
        channels = spec.dims[3 if is_last else 1]
        size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        return cls(size, channels if isinstance(channels, int) else None, recipe)

    def fitted(self, folder: Path, files: Sequence[Path]) -> list[str]:
        """What becomes of the images, in words, by their sizes.

        Raises:
            DataError: an image that cannot be opened; sizes that differ and stay so; or an
                aspect that would change by much without being asked for.
        """
        sizes = [size_of(file) for file in files]
        ends = [self._resized(size) if self.recipe.crop is None else None for size in sizes]
        if len(set(ends)) > 1:
            raise DataError(
                f"{folder}: images of different sizes; --preprocess with a crop makes them equal"
            )
        if not self._is_squashed:
            return []
        moved = [(f, s) for f, s, end in zip(files, sizes, ends, strict=True) if s != end]
        for file, size in moved:
            self._refuse_squashing(file, size)
        return [self._resizing(folder, moved, len(files))] if moved else []

    def read(self, file: Path) -> np.ndarray:
        """An image [H, W, C] of uint8, resized and cropped.

        Raises:
            DataError: not an image that can be read.
        """
        image = decoded(file, self.channels)
        image = resized(image, self._resized(image.size))
        side = self.recipe.crop
        pixels = np.asarray(image if side is None else image.crop(_centered(image.size, side)))
        return pixels if pixels.ndim == 3 else pixels[:, :, None]

    @property
    def _is_squashed(self) -> bool:
        return self.size is not None and self.recipe.resize is None and self.recipe.crop is None

    def _resized(self, image: tuple[int, int]) -> tuple[int, int]:
        """Width and height of an image before it is cropped."""
        recipe = self.recipe
        if recipe.resize is None and recipe.crop is None:
            return image if self.size is None else self.size[::-1]
        shorter = min(image)
        wanted = max(recipe.crop or 1, min(shorter, recipe.resize or shorter))
        return round(image[0] * wanted / shorter), round(image[1] * wanted / shorter)

    def _squashed(self, image: tuple[int, int]) -> float:
        """By how much one side is scaled more than the other."""
        assert self.size is not None
        ratio = (image[0] / image[1]) / (self.size[1] / self.size[0])
        return max(ratio, 1 / ratio) - 1

    def _refuse_squashing(self, file: Path, image: tuple[int, int]) -> None:
        assert self.size is not None
        if self._squashed(image) > MOST_SQUASHED and not self.recipe.stretch:
            raise DataError(
                f"{file}: {_text(image)} would be squashed to the model's "
                f"{_text(self.size[::-1])}; give --preprocess with a crop, or a recipe with "
                '"stretch": true'
            )

    def _resizing(
        self, folder: Path, moved: Sequence[tuple[Path, tuple[int, int]]], count: int
    ) -> str:
        assert self.size is not None
        most = max(self._squashed(size) for _, size in moved)
        squashed = f", one side by up to {most:.0%} more than the other" if most > 0.005 else ""
        return (
            f"{folder}: {len(moved)} of {count} images are resized to the model's "
            f"{_text(self.size[::-1])}, the first from {_text(moved[0][1])}{squashed}"
        )


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"


def _centered(image: tuple[int, int], side: int) -> tuple[int, int, int, int]:
    """Where a square at the center begins and ends: left, top, right, bottom."""
    left, top = (image[0] - side) // 2, (image[1] - side) // 2
    return left, top, left + side, top + side
