"""Image files as arrays [H, W, C] of uint8, right or refused.

Files are looked at before they are decoded: an image of too many pixels is refused. Images are
turned upright as their EXIF data say. Colors become gray where the model takes one channel, and
gray becomes color where it takes three. 16-bit images are scaled to 8 bits. Transparent pixels
have no one color, so that such images are refused, unless the model takes four channels.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxcp.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 2**26  # of an image: a camera's have fewer
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # by the channels a model takes
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
ORIENTATION = 0x0112
DEEPEST, OPAQUE = 2**16 - 1, 2**8 - 1


def size_of(file: Path) -> tuple[int, int]:
    """Width and height of an image as it is seen, without decoding it.

    Raises:
        DataError: not an image, or one of too many pixels.
    """
    from PIL import Image

    with _opened(file) as image:
        width, height = image.size
        try:
            # that of a PNG decodes it
            exif = Image.Image.getexif(image) if image.format == "PNG" else image.getexif()
        except Exception as error:  # decoders of a dozen formats raise what they like
            raise _unreadable(file, error) from error
        is_sideways = exif.get(ORIENTATION) in SIDEWAYS
    return (height, width) if is_sideways else (width, height)


def decoded(file: Path, channels: int | None) -> "Image.Image":
    """An upright image in the mode of so many channels, RGB for None.

    Raises:
        DataError: damaged, of too many pixels, or with pixels that have no one color.
    """
    from PIL import ImageOps

    with _opened(file) as image:
        try:
            image.load()
            upright = ImageOps.exif_transpose(image)
        except Exception as error:  # decoders of a dozen formats raise what they like
            raise _unreadable(file, error) from error
    return _in_mode(upright, MODES.get(channels or 3, "RGB"), file)


def resized(image: "Image.Image", size: tuple[int, int]) -> "Image.Image":
    """An image of this width and height, each pixel a mean of those it covers."""
    from PIL import Image

    return image.resize(size, Image.Resampling.BILINEAR)


def _opened(file: Path) -> "Image.Image":
    from PIL import Image

    if not file.is_file():
        raise DataError(f"{file}: not a regular file; take it out")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file)
    except Exception as error:  # decoders of a dozen formats raise what they like
        raise _unreadable(file, error) from error
    width, height = image.size
    if width * height > MOST_PIXELS:
        image.close()
        raise DataError(
            f"{file}: not a readable image: {width}×{height} are over {MOST_PIXELS:,} pixels; "
            "take it out, or make it smaller"
        )
    return image


def _in_mode(image: "Image.Image", mode: str, file: Path) -> "Image.Image":
    if image.mode.startswith("I") or image.mode == "F":
        image = _shallow(image, file)
    if mode == "RGBA":
        return image.convert(mode)
    if image.has_transparency_data:
        if np.asarray(image.convert("RGBA"))[..., 3].min() < OPAQUE:
            raise DataError(
                f"{file}: has transparent pixels, which have no one color; store it without an "
                "alpha channel, or take it out"
            )
        image = image.convert("RGBA").convert("RGB")
    return image if image.mode == mode else image.convert("RGB").convert(mode)


def _shallow(image: "Image.Image", file: Path) -> "Image.Image":
    """A gray image of 16 bits in 8."""
    from PIL import Image

    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > DEEPEST:
        raise DataError(
            f"{file}: pixels of {values.dtype} have no range that is known; store 8 or 16 bits"
        )
    scaled = (values.astype(np.uint32) * 255 + DEEPEST // 2) // DEEPEST
    return Image.fromarray(scaled.astype(np.uint8))


def _unreadable(file: Path, error: Exception) -> DataError:
    return DataError(f"{file}: not a readable image: {error}; take it out")
