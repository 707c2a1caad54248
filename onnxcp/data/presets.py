"""Alternative preprocessing of the same samples, to find what a model was trained with."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from onnxcp.data import preprocess
from onnxcp.data import sources as data
from onnxcp.data.preprocess import Preprocess
from onnxcp.data.preset_table import PRESETS
from onnxcp.data.roles import Sources
from onnxcp.data.samples import Samples
from onnxcp.errors import OnnxcpError
from onnxcp.graph.input_specs import TensorSpec

PLAIN = Preprocess()


@dataclass(frozen=True, slots=True, eq=False)
class Alternative:
    """Samples preprocessed in another way; `option` is the command line option for it."""

    option: str
    samples: Samples
    is_preset: bool


def alternatives(
    samples: Samples, specs: tuple[TensorSpec, ...], sources: Sources
) -> Iterator[Alternative]:
    """The same samples under every preset, then under other common recipes.

    Recipes that compute the same values as the current one are left out, and so are those whose
    result does not fit the model.
    """
    current = preprocess.named(sources.preprocess)
    seen = [_values(current)]
    for option, recipe in _recipes(current, are_files=any(map(os.path.isdir, sources.data))):
        if _values(recipe) in seen:
            continue
        try:
            parts = [data.load(name, specs, recipe) for name in sources.data]
            alternative = replace(samples, pick=data.join(parts).pick)
            alternative.read(0, 1)
        except OnnxcpError:
            continue
        seen.append(_values(recipe))
        yield Alternative(option, alternative, recipe in PRESETS.values())


def _recipes(current: Preprocess, *, are_files: bool) -> Iterator[tuple[str, Preprocess]]:
    """Presets first; of the two that scale alike, the one that crops is first for image files."""
    is_plain_layout = current.layout == PLAIN.layout
    same_scale = ("imagenet", "cifar10") if are_files else ("cifar10", "imagenet")
    for name in ("none", "unit", *same_scale) if is_plain_layout else ():
        yield f"<<preprocess={name}>>", PRESETS[name]
    geometry = replace(current, scale=1.0, mean=(0.0,), std=(1.0,), channel_order="RGB")
    for plain in (geometry, replace(geometry, channel_order="BGR")):
        yield from map(_as_file, _scales(plain))


def _scales(plain: Preprocess) -> Iterator[Preprocess]:
    """Ranges 0..255, 0..1, ImageNet's normalization, -1..1, and 0..255 from stored 0..1."""
    imagenet = PRESETS["imagenet"]
    yield plain
    yield replace(plain, scale=1 / 255)
    mean, std = imagenet.mean, imagenet.std
    if plain.channel_order == "BGR":
        mean, std = mean[::-1], std[::-1]
    yield replace(plain, scale=1 / 255, mean=mean, std=std)
    yield replace(plain, scale=1 / 127.5, mean=(1.0,))
    if plain.channel_order == "RGB":
        yield replace(plain, scale=255.0)


def _as_file(recipe: Preprocess) -> tuple[str, Preprocess]:
    """The option, with the JSON to put into a file, and its recipe."""
    fields = {k: v for k, v in asdict(recipe).items() if v != getattr(PLAIN, k)}
    return f"<<preprocess=FILE.json>> holding {json.dumps(fields)}", recipe


def _values(recipe: Preprocess) -> Preprocess:
    """A recipe without its geometry, so that recipes compare by what they do to values."""
    return replace(recipe, resize=None, crop=None, stretch=False)
