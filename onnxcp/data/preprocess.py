"""Preprocessing of stored samples into what a model was trained on.

A recipe is one of `PRESETS` or a JSON file with the fields of `Preprocess`. Stored images are
uint8 arrays [height, width, channels] in RGB order.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from onnxcp.data.preset_table import PRESETS
from onnxcp.errors import DataError
from onnxcp.graph.input_specs import TensorSpec

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHANNELS = (1, 3, 4)
MAX_SIDE = 1 << 14  # pixels; a larger number is a typing error


@dataclass(frozen=True, slots=True)
class Preprocess:
    """(value · scale − mean) / std, per channel, after resizing and cropping images.

    `resize` is the target length of the shorter side; smaller images are enlarged only if `crop`
    would not fit. `crop` is the side of the center crop. `stretch` allows any change of the
    aspect ratio when images are resized to the model's size.
    """

    resize: int | None = None
    crop: int | None = None
    layout: str = "NCHW"
    channel_order: str = "RGB"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    stretch: bool = False


NONE = Preprocess()
UNIT = Preprocess(scale=1 / 255)
CIFAR10 = Preprocess(scale=1 / 255, mean=IMAGENET_MEAN, std=IMAGENET_STD)
IMAGENET = Preprocess(resize=256, crop=224, scale=1 / 255, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def named(name: str) -> Preprocess:
    """A preset, or the recipe in a JSON file.

    Raises:
        DataError: it is neither, or a field is unknown or has an invalid value.
    """
    if name in PRESETS:
        return PRESETS[name]
    if not name.endswith(".json"):
        raise DataError(
            f"<<preprocess={name}>>: unknown; choose {', '.join(PRESETS)} or give a .json file"
        )
    path = Path(name)
    if "\0" in name or (path.exists() and not path.is_file()):
        raise DataError(f"<<preprocess={name!r}>>: not a regular file; give a .json file")
    try:
        return _from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(f"<<preprocess={name}>>: {error.strerror}; give a .json file") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"<<preprocess={name}>>: not a recipe: {error}") from error


def _from_json(document: Any) -> Preprocess:
    allowed = {f.name for f in fields(Preprocess)}
    if not isinstance(document, dict) or set(document) - allowed:
        raise ValueError(f"expected an object with some of {', '.join(sorted(allowed))}")
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in document.items()
    }
    recipe = Preprocess(**values)
    if recipe.layout not in ("NCHW", "NHWC") or recipe.channel_order not in ("RGB", "BGR"):
        raise ValueError("layout must be NCHW or NHWC, and channel_order RGB or BGR")
    for name in ("resize", "crop"):
        size = getattr(recipe, name)
        if size is not None and not (_is_number(size) and size in range(1, MAX_SIDE + 1)):
            raise ValueError(f"{name} must be a whole number of pixels from 1 to {MAX_SIDE}")
    for name in ("mean", "std"):
        numbers = getattr(recipe, name)
        if not isinstance(numbers, tuple) or not numbers or not all(map(_is_number, numbers)):
            raise ValueError(f"{name} must be a list of numbers: one, or one per channel")
    if not isinstance(recipe.stretch, bool):
        raise ValueError("stretch must be true or false")
    if not _is_number(recipe.scale):
        raise ValueError("scale must be a number")
    if 0 in recipe.std:
        raise ValueError("std must not contain zero")
    return recipe


def _is_number(value: object) -> bool:
    """Whether a JSON value fits into a float32; JSON allows true, NaN and larger numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= float(np.finfo(np.float32).max)


def to_input(samples: np.ndarray, recipe: Preprocess, spec: TensorSpec) -> np.ndarray:
    """Samples [samples, ...] as the model's input: layout, channel order, scale, mean, std, dtype.

    Raises:
        DataError: neither the samples nor their transpose fit the input.
    """
    if samples.ndim != 4:
        return _fitting(_scaled(samples, recipe, -1), spec)
    last = _channels_last(samples, spec, recipe)
    target = 3 if recipe.layout == "NHWC" else 1
    axis = 3 if last else 1
    if recipe.channel_order == "BGR":
        samples = np.flip(samples, axis)
    return _fitting(_scaled(np.moveaxis(samples, axis, target), recipe, target), spec)


def _channels_last(samples: np.ndarray, spec: TensorSpec, recipe: Preprocess) -> bool:
    """Whether stored samples are NHWC: by what fits the model, else by which axis is small."""
    fits_as_is = _fits(samples.shape, spec)
    moved = np.moveaxis(samples, 3, 1) if recipe.layout == "NCHW" else np.moveaxis(samples, 1, 3)
    fits_moved = _fits(moved.shape, spec)
    if fits_as_is != fits_moved:
        return fits_moved == (recipe.layout == "NCHW")
    return samples.shape[3] in CHANNELS and samples.shape[1] not in CHANNELS


def _fits(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    if spec.dims is None:
        return True
    pairs = zip(shape[1:], spec.dims[1:], strict=False)
    return len(shape) == len(spec.dims) and all(not isinstance(d, int) or d == s for s, d in pairs)


def _scaled(samples: np.ndarray, recipe: Preprocess, axis: int) -> np.ndarray:
    is_identity = recipe.scale == 1 and not any(recipe.mean) and set(recipe.std) == {1.0}
    if is_identity:
        return samples
    channels = samples.shape[axis] if samples.ndim == 4 else 1
    shape = [1] * samples.ndim
    for name, values in (("mean", recipe.mean), ("std", recipe.std)):
        if len(values) not in (1, channels):
            raise DataError(
                f"<<preprocess>>: {len(values)} values of {name}, but the samples have {channels} "
                f"channel{'s' * (channels != 1)}; choose another recipe, or none"
            )
    if samples.ndim == 4:
        shape[axis] = -1
    mean, std = (
        np.asarray(v, np.float32).reshape(shape if len(v) > 1 else -1)
        for v in (recipe.mean, recipe.std)
    )
    scaled: np.ndarray = (samples.astype(np.float32) * np.float32(recipe.scale) - mean) / std
    return scaled


def _fitting(samples: np.ndarray, spec: TensorSpec) -> np.ndarray:
    if not _fits(samples.shape, spec):
        shape = "x".join(map(str, samples.shape[1:]))
        raise DataError(
            f"samples of {shape} do not fit the input {spec.text()}; check <<data>> and "
            "<<preprocess>>"
        )
    return np.ascontiguousarray(samples.astype(spec.dtype, copy=False))
