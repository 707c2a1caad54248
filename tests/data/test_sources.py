"""Samples from files, folders and thin air."""

import json

import numpy as np
import pytest
from PIL import Image

from onnxcp.data import preprocess, sources
from onnxcp.data.preprocess import to_input
from onnxcp.data.preset_table import PRESETS
from onnxcp.data.specs import share_samples
from onnxcp.errors import DataError
from onnxcp.graph.input_specs import TensorSpec

FLOAT = np.dtype(np.float32)
IMAGE = TensorSpec("x", FLOAT, ("N", 3, 8, 8))
NONE = PRESETS["none"]


def npz(folder, **arrays):
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return str(path)


def pixels(count=5, shape=(8, 8, 3)):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(8, 8, 3), (3, 8, 8)], ids=["NHWC", "NCHW"])
def test_images_come_out_as_the_model_wants_them(tmp_path, shape):
    stored = pixels(shape=shape)
    samples = sources.load(npz(tmp_path, x=stored, label=np.arange(5)), [IMAGE], PRESETS["unit"])
    feeds = samples.read(1, 3)
    wanted = stored if shape[0] == 3 else stored.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(feeds["x"], wanted[1:3] / 255, atol=1e-6)
    assert feeds["x"].dtype == np.float32
    assert feeds["x"].flags.c_contiguous


def test_the_cifar10_preset_normalises_every_channel():
    made = to_input(pixels(), PRESETS["cifar10"], IMAGE)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    wanted = ((pixels() / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(made, wanted, atol=1e-5)


def test_nhwc_models_get_nhwc():
    spec = TensorSpec("x", FLOAT, ("N", 8, 8, 3))
    recipe = preprocess.Preprocess(layout="NHWC")
    np.testing.assert_array_equal(to_input(pixels(), recipe, spec), pixels())


def test_bgr_turns_the_channels_round():
    made = to_input(pixels(), preprocess.Preprocess(channel_order="BGR"), IMAGE)
    np.testing.assert_array_equal(made, pixels()[..., ::-1].transpose(0, 3, 1, 2))


def test_labels_are_optional(tmp_path):
    assert sources.load(npz(tmp_path, x=pixels()), [IMAGE], NONE).labels is None


def test_several_sources_are_read_as_one(tmp_path):
    parts = []
    for name, count in (("a", 3), ("b", 4)):
        folder = tmp_path / name
        folder.mkdir()
        made = npz(folder, x=pixels(count), label=np.arange(count))
        parts.append(sources.load(made, [IMAGE], NONE))
    joined = sources.join(parts)
    assert len(joined) == 7
    assert joined.labels.tolist() == [0, 1, 2, 0, 1, 2, 3]
    across = joined.read(2, 5)["x"]
    np.testing.assert_array_equal(across[0], parts[0].read(2, 3)["x"][0])
    np.testing.assert_array_equal(across[1:], parts[1].read(0, 2)["x"])


def test_batches_cover_every_sample_once(tmp_path):
    samples = sources.load(npz(tmp_path, x=pixels(5)), [IMAGE], NONE)
    assert [len(b["x"]) for b in samples.batches(2)] == [2, 2, 1]


def folder_of_images(folder, sizes, rows=None):
    for number, size in enumerate(sizes):
        Image.fromarray(pixels(1, (*size, 3))[0]).save(folder / f"{number}.png")
    if rows is not None:
        lines = ["file,label", *(f"{name},{label}" for name, label in rows)]
        (folder / "labels.csv").write_text("\n".join(lines))
    return str(folder)


def test_a_folder_is_read_in_the_order_of_its_labels(tmp_path):
    source = folder_of_images(tmp_path, [(8, 8)] * 3, [("2.png", 5), ("0.png", 1)])
    samples = sources.load(source, [IMAGE], NONE)
    assert samples.labels.tolist() == [5, 1]
    assert samples.read(0, 2)["x"].shape == (2, 3, 8, 8)


def test_the_imagenet_preset_crops_the_centre_and_does_not_enlarge(tmp_path):
    source = folder_of_images(tmp_path, [(227, 227)])
    spec = TensorSpec("x", FLOAT, ("N", 3, 224, 224))
    with Image.open(tmp_path / "0.png") as image:
        stored = np.asarray(image)[1:225, 1:225]
    recipe = PRESETS["imagenet"]
    made = sources.load(source, [spec], recipe).read(0, 1)["x"][0]
    wanted = (stored / 255 - np.array(recipe.mean)) / np.array(recipe.std)
    np.testing.assert_allclose(made, wanted.transpose(2, 0, 1), atol=1e-5)


@pytest.mark.parametrize("size", [(300, 500), (500, 300), (100, 90)])
def test_the_imagenet_preset_takes_any_size(tmp_path, size):
    source = folder_of_images(tmp_path, [size])
    spec = TensorSpec("x", FLOAT, ("N", 3, 224, 224))
    made = sources.load(source, [spec], PRESETS["imagenet"]).read(0, 1)["x"]
    assert made.shape == (1, 3, 224, 224)


def test_a_recipe_may_be_a_file(tmp_path):
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"scale": 0.5, "mean": [1, 2, 3], "std": [1, 1, 2]}))
    made = to_input(pixels(), preprocess.named(str(file)), IMAGE)
    wanted = (pixels() * 0.5 - np.array([1, 2, 3])) / np.array([1, 1, 2])
    np.testing.assert_allclose(made, wanted.transpose(0, 3, 1, 2), atol=1e-5)


@pytest.mark.parametrize(
    "recipe",
    [{"colour": 1}, {"layout": "HWC"}, {"std": [0, 1, 1]}, {"crop": -3}, {"mean": ["a"]}, [1]],
)
def test_a_recipe_that_makes_no_sense_is_refused(tmp_path, recipe):
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(recipe))
    with pytest.raises(DataError, match=r"^preprocess="):
        preprocess.named(str(file))


def test_synthetic_inputs_repeat_with_their_seed():
    shapes = {"x": (1, 3, 32, 32)}
    made = [sources.synthetic([IMAGE], shapes, 3, seed).read(0, 3)["x"] for seed in (0, 0, 1)]
    one, two, other = made
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, other)
    assert one.shape == (3, 3, 32, 32)


def test_synthetic_images_have_a_natural_spectrum():
    image = sources.synthetic([IMAGE], {"x": (1, 3, 64, 64)}, 1, 0).read(0, 1)["x"][0]
    power = np.abs(np.fft.fft2(image)) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64), indexing="ij"))
    low, high = ((frequency > a) & (frequency < b) for a, b in ((0.05, 0.1), (0.2, 0.4)))
    slope = np.log(power[:, low].mean() / power[:, high].mean()) / np.log(0.3 / 0.075)
    assert slope == pytest.approx(2.0, abs=0.3)  # amplitude 1/f is power 1/f²
    assert image.mean(axis=(1, 2)) == pytest.approx([0, 0, 0], abs=1e-5)
    assert image.std(axis=(1, 2)) == pytest.approx([1, 1, 1], rel=1e-4)


def test_a_part_of_a_source_is_counted_as_python_counts(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.arange(24, dtype=np.float32).reshape(6, 4), label=range(6))
    specs = [TensorSpec("x", np.dtype(np.float32), ("n", 4))]
    for text, wanted in (("[2:4]", [2, 3]), ("[4:]", [4, 5]), ("[:1]", [0]), ("[3:99]", [3, 4, 5])):
        part = sources.load(f"{tmp_path}/d.npz{text}", specs, preprocess.named("none"))
        assert part.labels.tolist() == wanted
        assert part.read(0, len(part))["x"][:, 0].tolist() == [4.0 * n for n in wanted]


def test_an_empty_part_is_refused(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((6, 4), np.float32))
    specs = [TensorSpec("x", np.dtype(np.float32), ("n", 4))]
    with pytest.raises(DataError, match="the source has 6"):
        sources.load(f"{tmp_path}/d.npz[6:]", specs, preprocess.named("none"))


def test_parts_that_overlap_share_samples_and_others_do_not():
    assert share_samples("a.npz[:400]", "./a.npz[399:]")
    assert not share_samples("a.npz[:400]", "a.npz[400:]")
    assert not share_samples("a.npz", "b.npz")
