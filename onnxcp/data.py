"""Calibration and evaluation samples: from .npz files, image folders, or made up.

`Samples` hands out feeds in batches, preprocessed when asked for, so that a folder of any
size is read with bounded memory. Synthetic inputs stand in where there is no data: images
with the 1/f spectrum of natural ones, of zero mean and unit variance in every channel.
"""

import csv
import re
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxcp.errors import DataError
from onnxcp.places import EVERYTHING, place
from onnxcp.preprocess import CHANNELS, Preprocess, read_image, to_input
from onnxcp.samples import Samples
from onnxcp.tensors import Feeds, Shape, TensorSpec

LABELS = ("label", "labels")
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
CLASS_NUMBER = re.compile("-?[0-9]{1,18}")
DAMAGED = (EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, tokenize.TokenError)


def load(source: str, specs: Sequence[TensorSpec], recipe: Preprocess) -> Samples:
    """Samples for a model's inputs from an .npz file or a folder of images; `PATH[a:b]` are
    some of them, from number a on, the first being 0, up to b, which is not one of them.

    Raises:
        DataError: unreadable, empty, or names, shapes, dtypes or counts that do not fit.
    """
    path, part = place(source)
    if part != range(EVERYTHING):
        return _part(load(str(path), specs, recipe), part, source)
    if path.is_dir():
        return _folder(path, specs, recipe)
    if not path.is_file():
        raise DataError(f"{source}: no such file; give an .npz file or a folder of images")
    if path.suffix != ".npz":
        raise DataError(f"{source}: not samples; give an .npz file or a folder of images")
    return _npz(path, specs, recipe)


def _part(samples: Samples, part: range, source: str) -> Samples:
    kept = samples.first(part.stop)
    if part.start >= len(kept):
        raise DataError(f"{source}: no samples; there are {len(samples)}, counted from 0")
    return replace(kept.after(part.start), source=source)


def join(parts: Sequence[Samples]) -> Samples:
    """Several sources as one.

    Raises:
        DataError: some have labels and some do not, or labels of another shape.
    """
    if len(parts) == 1:
        return parts[0]
    kinds = {p.labels.shape[1:] if p.labels is not None else None for p in parts}
    if len(kinds) > 1:
        names = ", ".join(p.source for p in parts)
        raise DataError(f"{names}: some have labels and some none, or others; give one kind")
    ends = np.cumsum([len(p) for p in parts])
    labelled = [p.labels for p in parts if p.labels is not None]
    labels = np.concatenate(labelled) if labelled else None

    def pick(numbers: Sequence[int]) -> Feeds:
        wanted = np.asarray(numbers)
        owner = np.searchsorted(ends, wanted, side="right")
        order = np.argsort(owner, kind="stable")
        pieces = [
            part.pick([part.numbers[n - end + len(part)] for n in wanted[owner == which]])
            for which, (part, end) in enumerate(zip(parts, ends, strict=True))
            if (owner == which).any()
        ]
        back = np.argsort(order)
        return {name: np.concatenate([p[name] for p in pieces])[back] for name in pieces[0]}

    source = ", ".join(p.source for p in parts)
    return Samples(pick, range(int(ends[-1])), labels, source)


def _npz(path: Path, specs: Sequence[TensorSpec], recipe: Preprocess) -> Samples:
    arrays = _arrays(path)
    labels = _popped_labels(path, arrays, specs)
    chosen = _named_as_inputs(path, arrays, specs)
    counts = {name: len(array) for name, array in chosen.items()}
    if labels is not None:
        counts["label"] = len(labels)
    if len(set(counts.values())) != 1:
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"{path}: arrays of unequal length: {shown}; store one row a sample")
    count = next(iter(counts.values()))
    if not count:
        raise DataError(f"{path}: holds no samples; give at least one")
    by_name = {s.name: s for s in specs}

    def pick(numbers: Sequence[int]) -> Feeds:
        rows = list(numbers)
        return {n: to_input(a[rows], recipe, by_name[n]) for n, a in chosen.items()}

    samples = Samples(pick, range(count), labels, str(path))
    samples.read(0, 1)  # whatever does not fit is said now, not after the fits
    return samples


def _popped_labels(
    path: Path, arrays: dict[str, np.ndarray], specs: Sequence[TensorSpec]
) -> np.ndarray | None:
    inputs = {s.name for s in specs}
    name = next((n for n in LABELS if n in arrays and n not in inputs), None)
    if name is None:
        return None
    labels = arrays.pop(name)
    if labels.ndim == 0 or labels.dtype.kind not in "fiub":
        raise DataError(f"{path}: {name!r} of {labels.dtype} holds no number for every sample")
    return labels


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no archive, or a truncated one")
        with np.load(path, allow_pickle=False) as archive:
            return {name: np.asanyarray(archive[name]) for name in archive.files}
    except (ValueError, OSError, *DAMAGED) as error:
        raise DataError(
            f"{path}: not a readable .npz of plain arrays: {error}; write it with numpy.savez"
        ) from error


def _named_as_inputs(
    path: Path, arrays: Mapping[str, np.ndarray], specs: Sequence[TensorSpec]
) -> dict[str, np.ndarray]:
    """The array of every input: by name, or the only one for the only input."""
    if not specs:
        raise DataError(f"{path}: the model takes no inputs; leave the data out")
    if len(specs) == 1 and len(arrays) == 1:
        chosen = {specs[0].name: next(iter(arrays.values()))}
    else:
        missing = [s.name for s in specs if s.name not in arrays]
        if missing:
            raise DataError(
                f"{path}: no array for input {', '.join(missing)}, only "
                f"{', '.join(arrays) or 'none'}; name the arrays as the model's inputs"
            )
        chosen = {s.name: arrays[s.name] for s in specs}
    for spec in specs:
        array = chosen[spec.name]
        if array.dtype.kind not in "fiub" or array.ndim == 0:
            raise DataError(f"{path}: array {spec.name!r} of {array.dtype} is no batch of numbers")
        if array.dtype.kind == "f" and spec.dtype.kind in "iu":
            raise DataError(
                f"{path}: {spec.name!r} is {array.dtype}, the model's input {spec.dtype}; "
                "convert the array"
            )
    return chosen


def _folder(path: Path, specs: Sequence[TensorSpec], recipe: Preprocess) -> Samples:
    if len(specs) != 1:
        raise DataError(
            f"{path}: a folder of images fits one input, not {len(specs)}; give an .npz file"
        )
    listing = path / "labels.csv"
    table = _labels(listing) if listing.is_file() else None
    files = sorted(f for f in path.iterdir() if f.suffix.lower() in IMAGES)
    labels = None
    if table is not None:  # in its order: the first N samples are the first N it lists
        present = {f.name for f in files}
        files = [path / name for name in table if name in present]
        labels = np.array([table[f.name] for f in files], dtype=np.int64)
    if not files:
        raise DataError(
            f"{path}: holds no images{'' if table is None else ' that labels.csv names'}; "
            f"give files that end in {', '.join(IMAGES)}"
        )
    spec, size = specs[0], _image_size(specs[0], recipe)

    def pick(numbers: Sequence[int]) -> Feeds:
        images = [read_image(files[number], recipe, size) for number in numbers]
        return {spec.name: to_input(np.stack(_equal(images, path)), recipe, spec)}

    samples = Samples(pick, range(len(files)), labels, str(path))
    samples.read(0, 1)
    return samples


def _equal(images: list[np.ndarray], path: Path) -> list[np.ndarray]:
    if len({i.shape for i in images}) > 1:
        raise DataError(
            f"{path}: images of different sizes; --preprocess with a crop makes them equal"
        )
    return images


def _image_size(spec: TensorSpec, recipe: Preprocess) -> tuple[int, int] | None:
    """The model's own (height, width), where fixed."""
    if spec.dims is None or len(spec.dims) != 4:
        raise DataError(f"images do not fit the input {spec.text()}; give an .npz file")
    height, width = spec.dims[1:3] if recipe.layout == "NHWC" else spec.dims[2:4]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _labels(path: Path) -> dict[str, int]:
    """File name → class number; a header line is allowed."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file: {error}; save it as UTF-8") from error
    if rows and Path(rows[0][0]).suffix.lower() not in IMAGES:
        rows = rows[1:]
    for row in rows:
        if len(row) < 2 or not CLASS_NUMBER.fullmatch(row[1].strip()):
            raise DataError(f"{path}: {','.join(row)[:40]!r}: write each line as file,class number")
    return {Path(row[0]).name: int(row[1]) for row in rows}


def synthetic(
    specs: Sequence[TensorSpec], shapes: Mapping[str, Shape], count: int, seed: int
) -> Samples:
    """`count` made-up samples (batches of the given shapes), the same for the same seed."""

    def one(number: int) -> Feeds:
        rng = np.random.default_rng([seed, number])
        return {s.name: _made_up(rng, shapes[s.name], s.dtype) for s in specs}

    def pick(numbers: Sequence[int]) -> Feeds:
        made = [one(number) for number in numbers]
        return {
            n: np.concatenate([m[n] for m in made]) if made[0][n].ndim else made[0][n]
            for n in made[0]
        }

    return Samples(pick, range(count), None, "synthetic")


def _made_up(rng: np.random.Generator, shape: Shape, dtype: np.dtype) -> np.ndarray:
    if dtype.kind in "iub":
        return np.zeros(shape, dtype)
    noise = rng.standard_normal(shape)
    axes = _image_axes(shape)
    return (noise if axes is None else _natural(noise, axes)).astype(dtype)


def _image_axes(shape: Shape) -> tuple[int, int] | None:
    if len(shape) != 4:
        return None
    if shape[1] in CHANNELS and min(shape[2:]) > 4:
        return 2, 3
    return (1, 2) if shape[3] in CHANNELS and min(shape[1:3]) > 4 else None


def _natural(noise: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    """Noise with amplitude 1/f over the image axes (Field, JOSA A 4, 1987)."""
    across = [np.fft.fftfreq(noise.shape[a]) for a in axes]
    frequency = np.hypot(across[0][:, None], across[1][None, :])
    frequency[0, 0] = np.inf
    falling = np.expand_dims(1 / frequency, [a for a in range(noise.ndim) if a not in axes])
    image = np.fft.ifft2(np.fft.fft2(noise, axes=axes) * falling, axes=axes).real
    natural: np.ndarray = image / image.std(axis=axes, keepdims=True)
    return natural
