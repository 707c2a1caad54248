"""How an image is fitted to a model's input: resized, cropped, or stretched if that is allowed.

Sizes are (width, height) for images, as Pillow has them, and (height, width) for `Frame.size`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxcp.data.images import decoded, resized, size_of
from onnxcp.data.preprocess import Preprocess
from onnxcp.errors import DataError
from onnxcp.graph.input_specs import TensorSpec

MAX_ASPECT_CHANGE = 0.1  # of the aspect ratio, without `stretch` in the recipe


@dataclass(frozen=True, slots=True)
class Frame:
    """What a model's image input fixes: `size` (height, width) and channels; None if free."""

    size: tuple[int, int] | None
    channels: int | None
    recipe: Preprocess

    @classmethod
    def of(cls, spec: TensorSpec, recipe: Preprocess) -> "Frame":
        """The frame of an input.

        Raises:
            DataError: the input does not have four dimensions.
        """
        if spec.dims is None or len(spec.dims) != 4:
            raise DataError(f"images do not fit the input {spec.text()}; give an .npz file")
        is_last = recipe.layout == "NHWC"
        height, width = spec.dims[1:3] if is_last else spec.dims[2:4]
        channels = spec.dims[3 if is_last else 1]
        size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        return cls(size, channels if isinstance(channels, int) else None, recipe)

    def fitted(self, folder: Path, files: Sequence[Path]) -> list[str]:
        """Check that all images fit the input; returns a note for the user if any is resized.

        Raises:
            DataError: an image cannot be opened, sizes still differ after preprocessing, or an
                aspect ratio would change by more than `MAX_ASPECT_CHANGE` without `stretch`.
        """
        sizes = [size_of(file) for file in files]
        ends = [self._resized(size) if self.recipe.crop is None else None for size in sizes]
        if len(set(ends)) > 1:
            raise DataError(
                f"{folder}: images of different sizes; <<preprocess>> with a crop makes them equal"
            )
        if not self._stretches:
            return []
        resized = [(f, s) for f, s, end in zip(files, sizes, ends, strict=True) if s != end]
        for file, size in resized:
            self._refuse_stretching(file, size)
        return [self._note(folder, resized, len(files))] if resized else []

    def read(self, file: Path) -> np.ndarray:
        """An image [H, W, C] of uint8, resized and cropped.

        Raises:
            DataError: the file is not a readable image.
        """
        image = decoded(file, self.channels)
        image = resized(image, self._resized(image.size))
        side = self.recipe.crop
        pixels = np.asarray(image if side is None else image.crop(_centered(image.size, side)))
        return pixels if pixels.ndim == 3 else pixels[:, :, None]

    @property
    def _stretches(self) -> bool:
        return self.size is not None and self.recipe.resize is None and self.recipe.crop is None

    def _resized(self, image: tuple[int, int]) -> tuple[int, int]:
        """Width and height of an image before it is cropped."""
        recipe = self.recipe
        if recipe.resize is None and recipe.crop is None:
            return image if self.size is None else self.size[::-1]
        shorter = min(image)
        target = max(recipe.crop or 1, min(shorter, recipe.resize or shorter))
        return round(image[0] * target / shorter), round(image[1] * target / shorter)

    def _aspect_change(self, image: tuple[int, int]) -> float:
        """How much more one side is scaled than the other: 0.1 is 10 %."""
        assert self.size is not None
        ratio = (image[0] / image[1]) / (self.size[1] / self.size[0])
        return max(ratio, 1 / ratio) - 1

    def _refuse_stretching(self, file: Path, image: tuple[int, int]) -> None:
        assert self.size is not None
        if self._aspect_change(image) > MAX_ASPECT_CHANGE and not self.recipe.stretch:
            raise DataError(
                f"{file}: {_text(image)} would be stretched to the model's "
                f"{_text(self.size[::-1])}; give <<preprocess>> with a crop, or a recipe with "
                '"stretch": true'
            )

    def _note(
        self, folder: Path, resized: Sequence[tuple[Path, tuple[int, int]]], count: int
    ) -> str:
        assert self.size is not None
        change = max(self._aspect_change(size) for _, size in resized)
        detail = f", one side by up to {change:.0%} more than the other" if change > 0.005 else ""
        return (
            f"{folder}: {len(resized)} of {count} images are resized to the model's "
            f"{_text(self.size[::-1])}, the first from {_text(resized[0][1])}{detail}"
        )


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"


def _centered(image: tuple[int, int], side: int) -> tuple[int, int, int, int]:
    """The center square of an image: left, top, right, bottom."""
    left, top = (image[0] - side) // 2, (image[1] - side) // 2
    return left, top, left + side, top + side
