"""What `--data` reads, from files as people have them."""

import os
import sys
import zipfile

import numpy as np
import onnx
import pytest
from PIL import Image

from onnxcp.artifacts.reservation import Reads
from onnxcp.data import archives, sources
from onnxcp.data.preprocess import named
from onnxcp.data.preset_table import PRESETS
from onnxcp.data.specs import share_samples
from onnxcp.errors import DataError, UsageError
from onnxcp.graph.input_specs import TensorSpec

FLOAT = np.dtype(np.float32)
SPEC = TensorSpec("x", FLOAT, ("N", 4))
IMAGE = TensorSpec("x", FLOAT, ("N", 3, 8, 8))
SIDE = TensorSpec("scale", FLOAT, (1,))
NONE = PRESETS["none"]
ROWS = np.arange(40, dtype=np.float32).reshape(10, 4)


def load(source, *specs, most=2**62):
    return sources.load(str(source), specs or (SPEC,), NONE, most)


def image(path, shade=0):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(path)


def shades(samples):
    return samples.read(0, len(samples))["x"][:, 0, 0, 0].tolist()


# --- labels as people store them

LABELS = np.array([3, 0, 2, 1, 1, 0, 3, 2, 2, 1])
STORED = {
    "whole": LABELS,
    "a column": LABELS[:, None],
    "one-hot": np.eye(4, dtype=np.float32)[LABELS],
    "one-hot of bools": np.eye(4, dtype=bool)[LABELS],
    "floats": LABELS.astype(np.float32),
    "a column of floats": LABELS[:, None].astype(np.float64),
    "small": LABELS.astype(np.uint8),
}


@pytest.mark.parametrize("name", ["label", "labels"])
@pytest.mark.parametrize("kind", STORED)
def test_labels_are_class_numbers_however_they_are_stored(tmp_path, kind, name):
    np.savez(tmp_path / "d.npz", x=ROWS, **{name: STORED[kind]})
    samples = load(tmp_path / "d.npz")
    assert samples.labels.tolist() == LABELS.tolist()
    assert samples.labels.dtype.kind in "iu"
    assert bool(samples.notes) is ("one-hot" in kind or "floats" in kind)


@pytest.mark.parametrize(
    "labels",
    [LABELS + 0.5, np.full(10, np.nan), np.ones((10, 4), np.float32), np.full(10, 1e300)],
    ids=["halves", "NaN", "rows of ones", "vast"],
)
def test_labels_that_are_no_classes_stay_as_they_are(tmp_path, labels):
    np.savez(tmp_path / "d.npz", x=ROWS, label=labels)
    np.testing.assert_array_equal(load(tmp_path / "d.npz").labels, labels)


def test_arrays_that_nothing_takes_are_said(tmp_path):
    np.savez(tmp_path / "d.npz", x=ROWS, target=LABELS)
    samples = load(tmp_path / "d.npz")
    assert samples.labels is None
    assert "'target': neither an input of the model nor 'label'" in samples.notes[0]


# --- inputs that are not one per sample


@pytest.mark.parametrize(
    "stored",
    [np.array([0.5]), np.full(10, 0.5), np.full((10, 1), 0.5)],
    ids=["once", "a number a sample", "an input a sample"],
)
def test_a_side_input_is_stored_once_or_for_every_sample(tmp_path, stored):
    np.savez(tmp_path / "d.npz", x=ROWS, scale=stored.astype(np.float32))
    samples = load(tmp_path / "d.npz", SIDE, SPEC)
    assert len(samples) == 10
    feeds = samples.read(3, 4)
    assert feeds["scale"].tolist() == [0.5]
    np.testing.assert_array_equal(feeds["x"], ROWS[3:4])


def test_whole_inputs_are_stacked(tmp_path):
    anchors = np.arange(60, dtype=np.float32).reshape(10, 3, 2)
    np.savez(tmp_path / "d.npz", x=ROWS, anchors=anchors)
    feeds = load(tmp_path / "d.npz", SPEC, TensorSpec("anchors", FLOAT, (3, 2))).read(7, 8)
    np.testing.assert_array_equal(feeds["anchors"], anchors[7])


def test_images_are_preprocessed_and_side_inputs_are_not(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.full((2, 8, 8, 3), 255, np.uint8), scale=np.float32([2]))
    feeds = sources.load(str(tmp_path / "d.npz"), [IMAGE, SIDE], named("unit")).read(0, 1)
    assert feeds["x"].max() == pytest.approx(1)
    assert feeds["scale"].tolist() == [2]


# --- large archives


@pytest.fixture
def all_are_large(monkeypatch):
    monkeypatch.setattr(archives, "MAX_WHOLE_BYTES", 0)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.usefixtures("all_are_large")
def test_large_archives_give_what_small_ones_do(tmp_path, save, order):
    x = np.asarray(np.arange(2000, dtype=np.float32).reshape(500, 4), order=order)
    save(tmp_path / "d.npz", x=x, label=np.arange(500) % 4, scale=np.float32([2]))
    for most in (2**62, 500, 30):
        samples = load(tmp_path / "d.npz", SPEC, SIDE, most=most).first(most)
        count = min(most, 500)
        feeds = [samples.read(n, n + 1)["x"] for n in (0, count - 1)]
        np.testing.assert_array_equal(np.concatenate(feeds), x[[0, count - 1]])
        assert samples.labels.tolist() == (np.arange(500) % 4)[:count].tolist()
        assert samples.read(0, 1)["scale"].tolist() == [2]


@pytest.mark.usefixtures("all_are_large")
def test_a_few_samples_of_a_large_file_take_little_memory(tmp_path):
    """A compressed array that would fill any memory: zeros, of which a few rows are unpacked."""
    rows, width = 2**34, 4
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}"
    begin = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117).encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", begin + bytes(16 * 1000))
    samples = load(tmp_path / "d.npz", most=4)
    assert samples.read(0, 4)["x"].shape == (4, 4)
    with pytest.raises(DataError, match=r"unpacks to 274\.9 GB.*samples=N"):
        load(tmp_path / "d.npz")


@pytest.mark.usefixtures("all_are_large")
def test_a_large_array_that_is_stored_is_mapped(tmp_path):
    np.savez(tmp_path / "d.npz", x=ROWS)
    assert isinstance(archives.read_npz(tmp_path / "d.npz", 4)["x"].base, np.memmap)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.usefixtures("all_are_large")
def test_large_archives_that_are_damaged_are_read_or_refused(tmp_path, save):
    save(tmp_path / "d.npz", x=ROWS, label=LABELS)
    whole = (tmp_path / "d.npz").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        (tmp_path / "d.npz").write_bytes(damaged)
        try:
            assert len(load(tmp_path / "d.npz")) > 0
        except DataError as error:
            assert "d.npz" in str(error)


# --- .npy


def test_an_npy_file_is_the_only_input(tmp_path):
    np.save(tmp_path / "d.npy", ROWS)
    np.testing.assert_array_equal(load(f"{tmp_path}/d.npy[2:5]").read(0, 3)["x"], ROWS[2:5])


def test_an_npy_file_does_not_fit_two_inputs(tmp_path):
    np.save(tmp_path / "d.npy", ROWS)
    with pytest.raises(DataError, match="name the arrays"):
        load(tmp_path / "d.npy", SPEC, SIDE)


def test_an_npy_file_of_objects_is_refused(tmp_path):
    np.save(tmp_path / "d.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"d\.npy: not a readable \.npy"):
        load(tmp_path / "d.npy")


# --- folders of images


def test_class_folders_are_classes_in_order_and_it_is_said(tmp_path):
    for name, shade in (("dog", 1), ("ant", 2), ("cat", 3)):
        for number in range(2):
            image(tmp_path / name / f"{number}.png", 10 * shade + number)
    samples = load(tmp_path, IMAGE)
    assert dict(zip(shades(samples), samples.labels.tolist(), strict=True)) == {
        20: 0, 21: 0, 30: 1, 31: 1, 10: 2, 11: 2
    }  # fmt: skip
    assert "3 class folders, labels by their order: 0 is 'ant', 1 is 'cat'" in samples.notes[0]


def test_class_folders_that_are_numbers_are_these_classes(tmp_path):
    for name in ("10", "9", "2"):
        image(tmp_path / name / "a.png", int(name))
    samples = load(tmp_path, IMAGE)
    assert samples.labels.tolist() == shades(samples) != []
    assert "by their numbers" in samples.notes[0]


def test_the_first_images_of_class_folders_are_of_many_classes(tmp_path):
    for name in "abc":
        for number in range(4):
            image(tmp_path / name / f"{number}.png")
    assert sorted(load(tmp_path, IMAGE, most=3).labels.tolist()) == [0, 1, 2]


def test_one_folder_of_images_in_a_folder_is_no_class(tmp_path):
    image(tmp_path / "images" / "a.png")
    assert load(tmp_path, IMAGE).labels is None


def test_a_map_of_labels_is_read(tmp_path):
    for name in ("a b.png", "c.png"):
        image(tmp_path / name, len(name))
    (tmp_path / "val_map.txt").write_text("c.png 7\na b.png 3\n\n")
    for source in (tmp_path, tmp_path / "val_map.txt"):
        samples = load(source, IMAGE)
        assert samples.labels.tolist() == [7, 3]
        assert shades(samples) == [5, 7]


def test_a_list_may_name_images_in_folders(tmp_path):
    image(tmp_path / "one" / "a.png", 1)
    image(tmp_path / "two" / "a.png", 2)
    (tmp_path / "labels.csv").write_text("file,label\ntwo/a.png,5\none/a.png,4\n")
    samples = load(tmp_path, IMAGE)
    assert (samples.labels.tolist(), shades(samples)) == ([5, 4], [2, 1])


def test_files_that_a_list_names_in_vain_are_counted(tmp_path):
    image(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("a.png,1\nb.png,2\nc.png,3\n")
    samples = load(tmp_path, IMAGE)
    assert samples.labels.tolist() == [1]
    assert "2 of 3 files are missing and were left out, the first is 'b.png'" in samples.notes[0]


def test_images_that_a_list_leaves_out_are_counted(tmp_path):
    for name in "abc":
        image(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("b.png,1\n")
    samples = load(tmp_path, IMAGE)
    assert len(samples) == 1
    assert (
        "2 images of the folder are not listed and were left out, the first is 'a.png'"
        in (samples.notes[0])
    )


def test_an_image_with_two_labels_is_refused(tmp_path):
    image(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("a.png,1\na.png,2\n")
    with pytest.raises(DataError, match=r"'a\.png' has two labels"):
        load(tmp_path, IMAGE)


# --- ONNX's own test data


def tensor(path, array, name=""):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(onnx.numpy_helper.from_array(array, name).SerializeToString())


def test_test_data_sets_are_read_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 9, 2):
        folder = tmp_path / f"test_data_set_{number}"
        tensor(folder / "input_0.pb", ROWS[number % 10 : number % 10 + 1])
        tensor(folder / "output_0.pb", np.zeros((1, 2), np.float32))
    samples = load(tmp_path)
    np.testing.assert_array_equal(samples.read(0, 3)["x"], ROWS[[2, 9, 0]])
    assert samples.labels is None
    assert len(load(tmp_path / "test_data_set_9")) == 1


def test_tensors_go_by_name_where_they_have_the_names_of_inputs(tmp_path):
    tensor(tmp_path / "test_data_set_0" / "input_0.pb", np.float32([2]), "scale")
    tensor(tmp_path / "test_data_set_0" / "input_1.pb", ROWS[:1], "x")
    feeds = load(tmp_path, SPEC, SIDE).read(0, 1)
    assert feeds["scale"].tolist() == [2]
    np.testing.assert_array_equal(feeds["x"], ROWS[:1])


@pytest.mark.parametrize("text", [b"", b"hello", b"\x08\x01\x10\x01"])
def test_a_file_that_is_no_tensor_is_refused(tmp_path, text):
    (tmp_path / "test_data_set_0").mkdir()
    (tmp_path / "test_data_set_0" / "input_0.pb").write_bytes(text)
    with pytest.raises(DataError):
        load(tmp_path)


# --- functions

MODULE = """
import numpy as np
from onnxruntime.quantization import CalibrationDataReader

ROWS = np.arange(40, dtype=np.float32).reshape(10, 4)

def feeds():
    return [{"x": ROWS[n : n + 1]} for n in range(10)]

def batches():
    for n in range(0, 10, 3):
        yield {"x": ROWS[n : n + 3]}, np.arange(n, min(n + 3, 10))

def one_label_each():
    return (({"x": ROWS[n : n + 1]}, n) for n in range(10))

def endless():
    while True:
        yield {"x": ROWS[:1]}

class Reader(CalibrationDataReader):
    def __init__(self):
        self.left = list(feeds())
    def get_next(self):
        return self.left.pop(0) if self.left else None

def fails():
    yield {"x": ROWS[:1]}
    raise KeyError("gone")

def nothing():
    return []

def numbers():
    return [1, 2]

def other():
    return [{"y": ROWS[:1]}]

def shapes():
    return [{"x": ROWS[:1]}, {"x": ROWS[:1, :2]}]

def some_labels():
    return [({"x": ROWS[:1]}, 1), {"x": ROWS[:1]}]

constant = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "given_feeds.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "given_feeds"
    sys.modules.pop("given_feeds", None)


@pytest.mark.parametrize("function", ["feeds", "batches", "one_label_each", "Reader"])
def test_functions_give_feeds_one_by_one_in_batches_or_as_a_reader(module, function):
    samples = load(f"{module}:{function}")
    np.testing.assert_array_equal(samples.read(0, 10)["x"], ROWS)
    has_labels = function in ("batches", "one_label_each")
    assert (samples.labels is None) is not has_labels
    if has_labels:
        assert samples.labels.tolist() == list(range(10))


def test_no_more_feeds_are_asked_for_than_are_needed(module):
    assert len(load(f"{module}:endless[:7]")) == 7
    assert len(load(f"{module}:endless", most=5)) == 5


REFUSED = {
    "fails": "failed: KeyError: 'gone'",
    "nothing": "yields no feeds",
    "numbers": "yields int, not feeds",
    "other": "feeds lack the input x",
    "shapes": "different shapes",
    "some_labels": "some feeds have labels",
}


@pytest.mark.parametrize("function", REFUSED)
def test_what_are_no_feeds_is_refused(module, function):
    with pytest.raises(DataError, match=REFUSED[function]):
        load(f"{module}:{function}")


@pytest.mark.parametrize("function", ["missing", "constant"])
def test_functions_that_are_none_are_refused(module, function):
    with pytest.raises(UsageError, match=f"data={module}:{function}"):
        load(f"{module}:{function}")


def test_a_module_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="module:function"):
        load("no_such_module:feeds")


# --- paths


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "d.npz")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        load(tmp_path / "d.npz")


def test_a_list_that_is_a_pipe_is_refused(tmp_path):
    image(tmp_path / "a.png")
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(DataError, match=r"labels\.csv: not a regular file"):
        load(tmp_path, IMAGE)


def test_a_recipe_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "r.json")
    with pytest.raises(DataError, match="not a regular file"):
        named(str(tmp_path / "r.json"))


def test_a_loop_of_links_is_a_line(tmp_path):
    (tmp_path / "d.npz").symlink_to("d.npz")
    with pytest.raises(DataError, match="a broken link"):
        load(tmp_path / "d.npz")


@pytest.mark.parametrize("source", ["a\0b.npz", "a\0b.npz[:3]"])
def test_a_nul_in_a_path_is_a_line(source):
    with pytest.raises(DataError, match="NUL"):
        load(source)


def test_a_list_of_images_lies_where_its_folder_is(tmp_path):
    for name in ("labels.csv", "val_map.txt"):
        assert share_samples(f"{tmp_path}/{name}", str(tmp_path))
    assert not share_samples(f"{tmp_path}/labels.csv", f"{tmp_path}/other")


def test_the_images_of_a_list_are_protected(tmp_path):
    image(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("a.png,1")
    found = Reads(samples=(f"{tmp_path}/labels.csv",)).files()
    assert {path.name for path in found} == {"a.png", "labels.csv"}
