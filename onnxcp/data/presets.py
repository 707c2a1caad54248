"""Other ways to preprocess the same samples, to find out which one a model was trained with."""

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
    """Samples preprocessed in another way; `option` is what to type for it."""

    option: str
    samples: Samples
    is_preset: bool


def alternatives(
    samples: Samples, specs: tuple[TensorSpec, ...], sources: Sources
) -> Iterator[Alternative]:
    """The same samples as every preset gives them, then as other usual recipes do; none that is
    the recipe they have, and none that the model does not take."""
    given = preprocess.named(sources.preprocess)
    seen = [_values(given)]
    for option, recipe in _recipes(given, are_files=any(map(os.path.isdir, sources.data))):
        if _values(recipe) in seen:
            continue
        try:
            parts = [data.load(name, specs, recipe) for name in sources.data]
            found = replace(samples, pick=data.join(parts).pick)
            found.read(0, 1)
        except OnnxcpError:
            continue
        seen.append(_values(recipe))
        yield Alternative(option, found, recipe in PRESETS.values())


def _recipes(given: Preprocess, *, are_files: bool) -> Iterator[tuple[str, Preprocess]]:
    """The presets, of two that scale alike the one that crops first where images are files."""
    fits = given.layout == PLAIN.layout
    alike = ("imagenet", "cifar10") if are_files else ("cifar10", "imagenet")
    for name in ("none", "unit", *alike) if fits else ():
        yield f"--preprocess {name}", PRESETS[name]
    geometry = replace(given, scale=1.0, mean=(0.0,), std=(1.0,), channel_order="RGB")
    for plain in (geometry, replace(geometry, channel_order="BGR")):
        yield from map(_as_file, _scales(plain))


def _scales(plain: Preprocess) -> Iterator[Preprocess]:
    """0..255, 0..1, normalized as ImageNet is, -1..1, and 0..255 of images that are stored as
    0..1."""
    usual = PRESETS["imagenet"]
    yield plain
    yield replace(plain, scale=1 / 255)
    mean, std = usual.mean, usual.std
    if plain.channel_order == "BGR":
        mean, std = mean[::-1], std[::-1]
    yield replace(plain, scale=1 / 255, mean=mean, std=std)
    yield replace(plain, scale=1 / 127.5, mean=(1.0,))
    if plain.channel_order == "RGB":
        yield replace(plain, scale=255.0)


def _as_file(recipe: Preprocess) -> tuple[str, Preprocess]:
    """What to put into a file for --preprocess."""
    fields = {k: v for k, v in asdict(recipe).items() if v != getattr(PLAIN, k)}
    return f"--preprocess FILE.json holding {json.dumps(fields)}", recipe


def _values(recipe: Preprocess) -> Preprocess:
    """What a recipe does to values: one that only crops otherwise is no other one."""
    return replace(recipe, resize=None, crop=None, stretch=False)
