"""Folders of images, and where the labels of their images are found.

| layout | labels |
|---|---|
| `labels.csv` | `file,label` a line; a header line is allowed |
| `val_map.txt` | `file label` a line |
| `class/name.jpg` | the folders: their names where all are numbers, else their order |
| images alone | none |
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
SHOWN = 3  # classes in a note


@dataclass(frozen=True, slots=True, eq=False)
class ImageFiles:
    """Images in order, with labels where there are any, and what a user should know."""

    files: Sequence[Path]
    labels: np.ndarray | None
    notes: tuple[str, ...] = ()


def find_images(folder: Path, listing: Path | None = None) -> ImageFiles:
    """The images of a folder, those of a `listing` where one is given or lies there.

    Raises:
        DataError: there are none, or the labels cannot be read.
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
    most: int,
    listing: Path | None = None,
) -> Samples:
    """The images of a folder as samples, no more than the first `most` of them.

    Raises:
        DataError: there are none, they cannot be read, or they do not fit the model.
    """
    if len(specs) != 1:
        raise DataError(
            f"{folder}: a folder of images fits one input, not {len(specs)}; give an .npz file"
        )
    spec, found = specs[0], find_images(folder, listing)
    files = found.files[:most]
    labels = None if found.labels is None else found.labels[:most]
    frame = Frame.of(spec, recipe)
    notes = (*found.notes, *frame.fitted(folder, files))

    def pick(numbers: Sequence[int]) -> Feeds:
        images = [frame.read(files[number]) for number in numbers]
        return {spec.name: to_input(np.stack(images), recipe, spec)}

    samples = Samples(pick, range(len(files)), labels, str(folder), notes)
    samples.read(0, 1)  # whatever does not fit is said now, not after the fits
    return samples


def _images(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in IMAGES)


def _unlabeled(folder: Path, files: list[Path], classes: list[Path]) -> ImageFiles:
    if not files and classes:
        return ImageFiles(_images(classes[0]), None)
    if not files:
        raise DataError(f"{folder}: holds no images; give files that end in {', '.join(IMAGES)}")
    left = sum(len(_images(d)) for d in classes)
    note = f"{folder}: {left} images in folders of their own were left out, beside {len(files)}"
    return ImageFiles(files, None, (note,) if left else ())


def _by_class(folder: Path, classes: Sequence[Path]) -> ImageFiles:
    """Images of all classes in turns, so that the first few are of many classes."""
    names = [d.name for d in classes]
    is_numbered = all(CLASS_NUMBER.fullmatch(name) for name in names)
    numbers = [int(name) for name in names] if is_numbered else list(range(len(names)))
    found = [[(f, n) for f in _images(d)] for d, n in zip(classes, numbers, strict=True)]
    rows = [row for turn in zip_longest(*found) for row in turn if row is not None]
    shown = ", ".join(f"{n} is {d!r}" for n, d in list(zip(numbers, names, strict=True))[:SHOWN])
    how = "their numbers" if is_numbered else "their order"
    more = "" if len(names) <= SHOWN else f" … {numbers[-1]} is {names[-1]!r}"
    note = f"{folder}: {len(names)} class folders, labels by {how}: {shown}{more}"
    labels = np.array([number for _, number in rows], dtype=np.int64)
    return ImageFiles([file for file, _ in rows], labels, (note,))


def _listed(folder: Path, listing: Path) -> ImageFiles:
    """Images in the order of a list: the first N samples are the first N it names."""
    table = _table(listing)
    places = {name: _place(folder, name) for name in table}
    missing = [name for name, place in places.items() if place is None]
    files = [place for place in places.values() if place is not None]
    if not files:
        raise DataError(
            f"{folder}: holds no images that {listing.name} names; give files that end in "
            f"{', '.join(IMAGES)}"
        )
    notes = list[str]()
    if missing:
        notes.append(
            f"{listing}: {len(missing)} of {len(table)} files are not there and were left out, "
            f"the first {missing[0]!r}"
        )
    unnamed = {*_images(folder)} - {*files}
    if unnamed:
        notes.append(
            f"{listing}: {len(unnamed)} images of the folder are not in it and were left out, the "
            f"first {min(unnamed).name!r}"
        )
    labels = [table[name] for name, place in places.items() if place is not None]
    return ImageFiles(files, np.array(labels, dtype=np.int64), tuple(notes))


def _place(folder: Path, name: str) -> Path | None:
    """The file that a list means: by its path below the folder, or by its name alone."""
    for path in (folder / name, folder / Path(name).name):
        if path.suffix.lower() in IMAGES and os.path.lexists(path):
            return path
    return None


def _table(listing: Path) -> Mapping[str, int]:
    """File → class number."""
    if not listing.is_file():
        raise DataError(f"{listing}: not a regular file; take it out")
    rows = _comma_rows(listing) if listing.suffix == ".csv" else _space_rows(listing)
    kind = "file,class number" if listing.suffix == ".csv" else "file class-number"
    if rows and Path(rows[0][0]).suffix.lower() not in IMAGES:
        rows = rows[1:]
    table = dict[str, int]()
    for row in rows:
        if len(row) < 2 or not CLASS_NUMBER.fullmatch(row[1].strip()) or "\0" in row[0]:
            raise DataError(f"{listing}: {','.join(row)[:40]!r}: write each line as {kind}")
        if table.setdefault(row[0], int(row[1])) != int(row[1]):
            raise DataError(f"{listing}: {row[0]!r} has two labels; leave one of them")
    return table


def _comma_rows(listing: Path) -> list[list[str]]:
    try:
        with listing.open(newline="", encoding="utf-8-sig") as stream:
            return [row for row in csv.reader(stream) if row]
    except (ValueError, csv.Error) as error:
        raise DataError(f"{listing}: not a readable CSV file: {error}; save it as UTF-8") from error


def _space_rows(listing: Path) -> list[list[str]]:
    """The label is the last word: names may hold spaces."""
    try:
        lines = listing.read_text(encoding="utf-8-sig").splitlines()
    except ValueError as error:
        raise DataError(f"{listing}: not a readable text: {error}; save it as UTF-8") from error
    return [line.strip().rsplit(maxsplit=1) for line in lines if line.strip()]
