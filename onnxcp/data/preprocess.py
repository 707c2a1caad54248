"""From stored samples to what a model was trained on: size, layout, scale, mean, std.

A recipe is one of `PRESETS` or a JSON file with the same fields. Images are uint8 arrays
of height × width × channels, channels in RGB order, until the recipe says otherwise.
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
MOST_PIXELS = 1 << 14  # of a side: more is a typing error


@dataclass(frozen=True, slots=True)
class Preprocess:
    """(value · scale − mean) / std, per channel, after resizing and cropping images.

    `resize` is the length the shorter side is brought down to (images already smaller are
    only enlarged if `crop` would not fit); `crop` the side of the centre crop. `stretch` allows
    images of another aspect to be squashed to the model's size.
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
        DataError: neither, or a field that is unknown or of the wrong kind.
    """
    if name in PRESETS:
        return PRESETS[name]
    if not name.endswith(".json"):
        raise DataError(
            f"--preprocess {name}: unknown; choose {', '.join(PRESETS)} or give a .json file"
        )
    path = Path(name)
    if "\0" in name or (path.exists() and not path.is_file()):
        raise DataError(f"--preprocess {name!r}: not a regular file; give a .json file")
    try:
        return _from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(f"--preprocess {name}: {error.strerror}; give a .json file") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"--preprocess {name}: not a recipe: {error}") from error


def _from_json(document: Any) -> Preprocess:
    known = {f.name for f in fields(Preprocess)}
    if not isinstance(document, dict) or set(document) - known:
        raise ValueError(f"expects an object with some of {', '.join(sorted(known))}")
    recipe: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in document.items()
    }
    made = Preprocess(**recipe)
    if made.layout not in ("NCHW", "NHWC") or made.channel_order not in ("RGB", "BGR"):
        raise ValueError("layout is NCHW or NHWC, channel_order RGB or BGR")
    for name in ("resize", "crop"):
        size = getattr(made, name)
        if size is not None and not (_is_number(size) and size in range(1, MOST_PIXELS + 1)):
            raise ValueError(f"{name} is a whole number of pixels from 1 to {MOST_PIXELS}")
    for name in ("mean", "std"):
        values = getattr(made, name)
        if not isinstance(values, tuple) or not values or not all(map(_is_number, values)):
            raise ValueError(f"{name} is a list of numbers, one or one a channel")
    if not isinstance(made.stretch, bool):
        raise ValueError("stretch is true or false")
    if not _is_number(made.scale):
        raise ValueError("scale is a number")
    if 0 in made.std:
        raise ValueError("std holds a zero")
    return made


def _is_number(value: object) -> bool:
    """JSON allows true, NaN and numbers beyond any float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= float(np.finfo(np.float32).max)


def to_input(samples: np.ndarray, recipe: Preprocess, spec: TensorSpec) -> np.ndarray:
    """Samples as the model's input: layout, channel order, scale, mean, std, dtype.

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
    """Whether the stored samples are NHWC: by what fits the model, else by what is small."""
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
    plain = recipe.scale == 1 and not any(recipe.mean) and set(recipe.std) == {1.0}
    if plain:
        return samples
    channels = samples.shape[axis] if samples.ndim == 4 else 1
    shape = [1] * samples.ndim
    for name, values in (("mean", recipe.mean), ("std", recipe.std)):
        if len(values) not in (1, channels):
            raise DataError(
                f"--preprocess: {len(values)} values of {name}, but the samples have {channels} "
                f"channel{'s' * (channels != 1)}; choose a recipe that fits, or none"
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
            f"samples of {shape} do not fit the input {spec.text()}; check --data and --preprocess"
        )
    return np.ascontiguousarray(samples.astype(spec.dtype, copy=False))
