"""Image files as arrays [H, W, C] of uint8.

Sizes are checked before decoding: images of more than `MAX_PIXELS` are refused. Images are turned
upright by their EXIF orientation. Colors become gray if the model takes one channel, and gray
becomes color if it takes three. 16-bit images are scaled to 8 bits. Images with transparent
pixels are refused, unless the model takes four channels: such pixels have no defined color.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxcp.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 2**26  # of one image; cameras produce fewer
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's mode by the channels of the model
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
ORIENTATION = 0x0112
MAX_16_BIT, OPAQUE = 2**16 - 1, 2**8 - 1


def size_of(file: Path) -> tuple[int, int]:
    """Width and height of an upright image, without decoding it.

    Raises:
        DataError: the file is not an image, or has more than `MAX_PIXELS`.
    """
    from PIL import Image

    with _opened(file) as image:
        width, height = image.size
        try:
            # PngImageFile.getexif would decode the image
            exif = Image.Image.getexif(image) if image.format == "PNG" else image.getexif()
        except Exception as error:  # image decoders can raise anything
            raise _unreadable(file, error) from error
        is_sideways = exif.get(ORIENTATION) in SIDEWAYS
    return (height, width) if is_sideways else (width, height)


def decoded(file: Path, channels: int | None) -> "Image.Image":
    """An upright image with this many channels; None means RGB.

    Raises:
        DataError: the image is damaged, has more than `MAX_PIXELS`, or transparent pixels.
    """
    from PIL import ImageOps

    with _opened(file) as image:
        try:
            image.load()
            upright = ImageOps.exif_transpose(image)
        except Exception as error:  # image decoders can raise anything
            raise _unreadable(file, error) from error
    return _in_mode(upright, MODES.get(channels or 3, "RGB"), file)


def resized(image: "Image.Image", size: tuple[int, int]) -> "Image.Image":
    """An image of this width and height, by bilinear resampling."""
    from PIL import Image

    return image.resize(size, Image.Resampling.BILINEAR)


def _opened(file: Path) -> "Image.Image":
    from PIL import Image

    if not file.is_file():
        raise DataError(f"{file}: not a regular file; remove it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file)
    except Exception as error:  # image decoders can raise anything
        raise _unreadable(file, error) from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise DataError(
            f"{file}: not a readable image: {width}×{height} is over {MAX_PIXELS:,} pixels; "
            "remove it, or make it smaller"
        )
    return image


def _in_mode(image: "Image.Image", mode: str, file: Path) -> "Image.Image":
    if image.mode.startswith("I") or image.mode == "F":
        image = _as_8_bit(image, file)
    if mode == "RGBA":
        return image.convert(mode)
    if image.has_transparency_data:
        if np.asarray(image.convert("RGBA"))[..., 3].min() < OPAQUE:
            raise DataError(
                f"{file}: has transparent pixels, whose color is undefined; store it without an "
                "alpha channel, or remove it"
            )
        image = image.convert("RGBA").convert("RGB")
    return image if image.mode == mode else image.convert("RGB").convert(mode)


def _as_8_bit(image: "Image.Image", file: Path) -> "Image.Image":
    """A gray image of 16 bits, scaled to 8 bits."""
    from PIL import Image

    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > MAX_16_BIT:
        raise DataError(
            f"{file}: the value range of {values.dtype} pixels is unknown; store 8 or 16 bits"
        )
    scaled = (values.astype(np.uint32) * 255 + MAX_16_BIT // 2) // MAX_16_BIT
    return Image.fromarray(scaled.astype(np.uint8))


def _unreadable(file: Path, error: Exception) -> DataError:
    return DataError(f"{file}: not a readable image: {error}; remove it")
