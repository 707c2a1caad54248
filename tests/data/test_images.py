"""Image files of every kind: right values, or a clear refusal."""

import json
import os

import numpy as np
import pytest
from PIL import Image, ImageOps

from onnxcp.data import images, preprocess, sources
from onnxcp.data.preset_table import PRESETS
from onnxcp.errors import DataError
from onnxcp.graph.input_specs import TensorSpec

FLOAT = np.dtype(np.float32)
COLOR, GRAY = (TensorSpec("x", FLOAT, ("N", channels, 8, 8)) for channels in (3, 1))
NONE = PRESETS["none"]
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def read(folder, spec=COLOR, recipe=NONE):
    """The one image of a folder as the model gets it, channels last."""
    return sources.load(str(folder), [spec], recipe).read(0, 1)["x"][0].transpose(1, 2, 0)


def test_gray_becomes_color_where_the_model_takes_three_channels(tmp_path):
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path), PIXELS[..., [0, 0, 0]])


def test_color_becomes_gray_where_the_model_takes_one_channel(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    weights = np.array([0.299, 0.587, 0.114])  # of ITU-R 601
    np.testing.assert_allclose(read(tmp_path, GRAY)[..., 0], PIXELS @ weights, atol=1)


def test_palette_colors_are_looked_up(tmp_path):
    few = Image.fromarray(PIXELS // 128 * 255)
    few.quantize(8).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path), np.asarray(few))


def test_an_opaque_alpha_channel_is_dropped(tmp_path):
    opaque = np.dstack([PIXELS, np.full((8, 8), 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path), PIXELS)


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette"])
def test_transparent_pixels_are_refused(tmp_path, kind):
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[3, 4] = 0
    if kind == "palette":
        Image.fromarray(PIXELS[..., 0]).convert("P").save(tmp_path / "a.png", transparency=0)
        Image.fromarray(np.zeros((8, 8), np.uint8)).convert("P").save(
            tmp_path / "a.png", transparency=0
        )
    else:
        colors = PIXELS if kind == "RGBA" else PIXELS[..., 0]
        Image.fromarray(np.dstack([colors, alpha]), kind).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: has transparent pixels"):
        read(tmp_path)


def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path):
    deep = PIXELS[..., 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path, GRAY)[..., 0], PIXELS[..., 0])


def test_floats_have_no_known_range(tmp_path):
    Image.fromarray(PIXELS[..., 0].astype(np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match="the value range of float32 pixels is unknown"):
        read(tmp_path)


def test_four_printing_colors_become_three(tmp_path):
    plain = Image.fromarray(np.full((8, 8, 3), (200, 40, 90), np.uint8))
    plain.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(read(tmp_path), np.asarray(plain), atol=6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright_as_their_exif_says(tmp_path, orientation):
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    stored = Image.fromarray(PIXELS[:, :6])
    stored.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    spec = TensorSpec("x", FLOAT, ("N", 3, upright.height, upright.width))
    np.testing.assert_array_equal(read(tmp_path, spec), np.asarray(upright))
    assert (upright.width > upright.height) is (orientation in images.SIDEWAYS)
    assert not sources.load(str(tmp_path), [spec], NONE).notes


def test_a_cut_file_is_named(tmp_path):
    Image.fromarray(PIXELS).resize((64, 64)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.png: not a readable image"):
        sources.load(str(tmp_path), [TensorSpec("x", FLOAT, ("N", 3, 64, 64))], NONE)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_files_are_read_or_refused(tmp_path, seed):
    kind = ["png", "jpg", "bmp", "webp", "tiff"][seed % 5]
    file = tmp_path / f"a.{kind}"
    Image.fromarray(PIXELS).save(file)
    damaged = bytearray(file.read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, len(damaged), 5):
        damaged[place] = rng.integers(256)
    file.write_bytes(damaged)
    try:
        image = images.decoded(file, 3)
    except DataError as error:
        assert str(file) in str(error)
    else:
        assert image.mode == "RGB"


def test_too_many_pixels_are_refused_before_decoding(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 71)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(DataError, match="8×9 is over 71 pixels"):
        images.decoded(tmp_path / "a.png", 3)


def test_a_pipe_among_images_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: not a regular file"):
        sources.load(str(tmp_path), [COLOR], NONE)


# --- sizes


def test_a_resize_is_said(tmp_path):
    Image.fromarray(PIXELS).resize((16, 16)).save(tmp_path / "a.png")
    (note,) = sources.load(str(tmp_path), [COLOR], NONE).notes
    assert "1 of 1 images are resized to the model's 8×8, the first from 16×16" in note


def test_a_little_stretching_is_reported(tmp_path):
    Image.fromarray(PIXELS).resize((42, 40)).save(tmp_path / "a.png")
    (note,) = sources.load(str(tmp_path), [COLOR], NONE).notes
    assert "one side by up to 5% more than the other" in note


def test_images_of_another_aspect_are_not_stretched_unless_asked_for(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    Image.fromarray(PIXELS).resize((16, 8)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b\.png: 16×8 would be stretched to the model's 8×8"):
        sources.load(str(tmp_path), [COLOR], NONE)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"stretch": True}))
    samples = sources.load(str(tmp_path), [COLOR], preprocess.named(str(recipe)))
    assert samples.read(0, 2)["x"].shape == (2, 3, 8, 8)
    assert "100% more" in samples.notes[0]


def test_a_crop_keeps_the_aspect_without_a_word(tmp_path):
    Image.fromarray(PIXELS).resize((16, 8)).save(tmp_path / "a.png")
    samples = sources.load(str(tmp_path), [COLOR], preprocess.Preprocess(crop=8))
    assert not samples.notes


def test_sizes_that_stay_different_are_said_at_once(tmp_path):
    for name, side in (("a", 8), ("b", 9)):
        Image.fromarray(PIXELS).resize((side, side)).save(tmp_path / f"{name}.png")
    spec = TensorSpec("x", FLOAT, ("N", 3, "h", "w"))
    with pytest.raises(DataError, match="images of different sizes"):
        sources.load(str(tmp_path), [spec], NONE)
