"""Folders of images and their labels.

| layout | labels |
|---|---|
| `labels.csv` | one `file,label` per line; a header line is allowed |
| `val_map.txt` | one `file label` per line |
| `class/name.jpg` | the folder names if all are numbers, else their order |
| images only | none |
"""

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from onnxcp.data.framing import Frame
from onnxcp.data.preprocess import Preprocess, to_input
from onnxcp.data.samples import Samples
from onnxcp.data.specs import LISTINGS
from onnxcp.errors import DataError
from onnxcp.graph.input_specs import Feeds, TensorSpec

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
CLASS_NUMBER = re.compile("-?[0-9]{1,18}")
SHOWN_CLASSES = 3  # in a note to the user


@dataclass(frozen=True, slots=True, eq=False)
class ImageFiles:
    """Image files in order, their class numbers [files] or None, and notes for the user."""

    files: Sequence[Path]
    labels: np.ndarray | None
    notes: tuple[str, ...] = ()


def find_images(folder: Path, listing: Path | None = None) -> ImageFiles:
    """The images of a folder, or those that `listing` or a list in the folder names.

    Raises:
        DataError: there are no images, or the labels cannot be read.
    """
    lists = [folder / name for name in LISTINGS if os.path.lexists(folder / name)]
    listing = listing or next(iter(lists), None)
    if listing is not None:
        return _listed(folder, listing)
    files = _images(folder)
    classes = sorted(d for d in folder.iterdir() if d.is_dir() and _images(d))
    if files or len(classes) < 2:
        return _unlabeled(folder, files, classes)
    return _by_class(folder, classes)


def image_samples(
    folder: Path,
    specs: Sequence[TensorSpec],
    recipe: Preprocess,
    limit: int,
    listing: Path | None = None,
) -> Samples:
    """The first `limit` images of a folder as samples; images are decoded when they are read.

    Raises:
        DataError: there are no images, one cannot be read, or they do not fit the model.
    """
    if len(specs) != 1:
        raise DataError(
            f"{folder}: a folder of images fits one input, not {len(specs)}; give an .npz file"
        )
    spec, images = specs[0], find_images(folder, listing)
    files = images.files[:limit]
    labels = None if images.labels is None else images.labels[:limit]
    frame = Frame.of(spec, recipe)
    notes = (*images.notes, *frame.fitted(folder, files))

    def pick(numbers: Sequence[int]) -> Feeds:
        pixels = [frame.read(files[number]) for number in numbers]
        return {spec.name: to_input(np.stack(pixels), recipe, spec)}

    samples = Samples(pick, range(len(files)), labels, str(folder), notes)
    samples.read(0, 1)  # reports samples that do not fit now, not after the fits
    return samples


def _images(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in IMAGES)


def _unlabeled(folder: Path, files: list[Path], classes: list[Path]) -> ImageFiles:
    if not files and classes:
        return ImageFiles(_images(classes[0]), None)
    if not files:
        raise DataError(f"{folder}: holds no images; give files that end in {', '.join(IMAGES)}")
    unused = sum(len(_images(d)) for d in classes)
    note = f"{folder}: {unused} images in subfolders were left out; {len(files)} are used"
    return ImageFiles(files, None, (note,) if unused else ())


def _by_class(folder: Path, classes: Sequence[Path]) -> ImageFiles:
    """Images of all classes in turn, so that the first few cover many classes."""
    names = [d.name for d in classes]
    is_numbered = all(CLASS_NUMBER.fullmatch(name) for name in names)
    numbers = [int(name) for name in names] if is_numbered else list(range(len(names)))
    by_class = [[(f, n) for f in _images(d)] for d, n in zip(classes, numbers, strict=True)]
    rows = [row for turn in zip_longest(*by_class) for row in turn if row is not None]
    pairs = list(zip(numbers, names, strict=True))[:SHOWN_CLASSES]
    shown = ", ".join(f"{number} is {name!r}" for number, name in pairs)
    how = "their numbers" if is_numbered else "their order"
    more = "" if len(names) <= SHOWN_CLASSES else f" … {numbers[-1]} is {names[-1]!r}"
    note = f"{folder}: {len(names)} class folders, labels by {how}: {shown}{more}"
    labels = np.array([number for _, number in rows], dtype=np.int64)
    return ImageFiles([file for file, _ in rows], labels, (note,))


def _listed(folder: Path, listing: Path) -> ImageFiles:
    """Images in the order of the list: the first N samples are the first N files it names."""
    table = _table(listing)
    paths = {name: _path(folder, name) for name in table}
    missing = [name for name, path in paths.items() if path is None]
    files = [path for path in paths.values() if path is not None]
    if not files:
        raise DataError(
            f"{folder}: holds no images that {listing.name} names; give files that end in "
            f"{', '.join(IMAGES)}"
        )
    notes = list[str]()
    if missing:
        notes.append(
            f"{listing}: {len(missing)} of {len(table)} files are missing and were left out, "
            f"the first is {missing[0]!r}"
        )
    unnamed = {*_images(folder)} - {*files}
    if unnamed:
        notes.append(
            f"{listing}: {len(unnamed)} images of the folder are not listed and were left out, "
            f"the first is {min(unnamed).name!r}"
        )
    labels = [table[name] for name, path in paths.items() if path is not None]
    return ImageFiles(files, np.array(labels, dtype=np.int64), tuple(notes))


def _path(folder: Path, name: str) -> Path | None:
    """The file that a list names: by its path in the folder, else by its file name."""
    for path in (folder / name, folder / Path(name).name):
        if path.suffix.lower() in IMAGES and os.path.lexists(path):
            return path
    return None


def _table(listing: Path) -> Mapping[str, int]:
    """Class number by file name, in the order of the list."""
    if not listing.is_file():
        raise DataError(f"{listing}: not a regular file; remove it")
    rows = _comma_rows(listing) if listing.suffix == ".csv" else _space_rows(listing)
    kind = "file,class number" if listing.suffix == ".csv" else "file class-number"
    if rows and Path(rows[0][0]).suffix.lower() not in IMAGES:
        rows = rows[1:]
    table = dict[str, int]()
    for row in rows:
        if len(row) < 2 or not CLASS_NUMBER.fullmatch(row[1].strip()) or "\0" in row[0]:
            raise DataError(f"{listing}: {','.join(row)[:40]!r}: write each line as {kind}")
        if table.setdefault(row[0], int(row[1])) != int(row[1]):
            raise DataError(f"{listing}: {row[0]!r} has two labels; remove one of them")
    return table


def _comma_rows(listing: Path) -> list[list[str]]:
    try:
        with listing.open(newline="", encoding="utf-8-sig") as stream:
            return [row for row in csv.reader(stream) if row]
    except (ValueError, csv.Error) as error:
        raise DataError(f"{listing}: not a readable CSV file: {error}; save it as UTF-8") from error


def _space_rows(listing: Path) -> list[list[str]]:
    """Rows of file and label; the label is the last word, since names may contain spaces."""
    try:
        lines = listing.read_text(encoding="utf-8-sig").splitlines()
    except ValueError as error:
        raise DataError(f"{listing}: not readable text: {error}; save it as UTF-8") from error
    return [line.strip().rsplit(maxsplit=1) for line in lines if line.strip()]
