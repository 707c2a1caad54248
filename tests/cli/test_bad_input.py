"""Every bad input ends with one line on stderr, the documented exit code and nothing written.

A row is a claim: what is wrong, and the words the line must hold: the name of the offender
and what to try. `refused` checks the rest for all of them.
"""

import importlib.util
import json
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

from onnxcp.cli import app

WRONG_USE, MISSING = 2, 3
KERNEL = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
IMAGES = np.random.default_rng(1).standard_normal((6, 3, 8, 8)).astype(np.float32)
LABELS = np.arange(6)


def write_model(name="m.onnx", dims="N,3,8,8", weight=KERNEL, attributes="", **changes):
    """conv1, pooled to 8 class scores; `changes` are made to the weight's TensorProto."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        f"g (float[{dims}] x) => (float[N,8] y) {{"
        f"  [conv1] c = Conv {attributes} (x, w)"
        "   [pool] p = GlobalAveragePool (c)"
        "   [flat] y = Flatten (p) }"
    )
    tensor = onnx.numpy_helper.from_array(weight, "w")
    for field, value in changes.items():
        setattr(tensor, field, value)
    model.graph.initializer.append(tensor)
    Path(name).write_bytes(model.SerializeToString())
    return model


def write_external(location, length=KERNEL.nbytes, **entries):
    """m.onnx, its weight in another file; a `length` of None leaves the entry out."""
    model = write_model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, "length": length, **entries}.items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    Path("m.onnx").write_bytes(model.SerializeToString())


def write_images(folder="f", names=("a.png", "b.png"), labels="a.png,1\nb.png,2\n", size=(8, 8)):
    Path(folder).mkdir()
    for name in names:
        Image.new("RGB", size, (200, 30, 90)).save(Path(folder) / name)
    if labels is not None:
        Path(folder, "labels.csv").write_bytes(labels.encode("latin-1"))


def write_plan(**changes):
    plan = {"plan_version": 2, "fits": {}}
    sites = {"conv1": {"form": "cp3", "rank": 4}}
    Path("p.json").write_text(json.dumps({**plan, "sites": sites, **changes}))


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def everything_here():
    return {
        path: path.read_bytes() if path.is_file() else None for path in sorted(Path().rglob("*"))
    }


def refused(*arguments, code=WRONG_USE):
    """The one line of a command that must change nothing."""
    before = everything_here()
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert everything_here() == before
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def check(line, words):
    missing = [word for word in words if word not in line]
    assert not missing, line


COMMANDS = [("optimize",), ("inspect",), ("benchmark",), ("verify", "m.onnx")]


# --- models ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
def test_a_missing_model_is_refused_by_every_command(command):
    write_model()
    check(refused(*command, "none.onnx"), ["none.onnx: no such file", "give the path"])


def write_cut(share):
    write_model()
    whole = Path("m.onnx").read_bytes()
    Path("m.onnx").write_bytes(whole[: int(len(whole) * share)])


def edit(change):
    """m.onnx after `change(model)`."""
    model = write_model()
    change(model)
    Path("m.onnx").write_bytes(model.SerializeToString())


def write_two_lines():
    """m.onnx with a window that does not fit, in a node with a name of two lines."""
    model = write_model(weight=np.ones((8, 3, 9, 9), np.float32))
    model.graph.node[0].name = "a\nb"
    Path("m.onnx").write_bytes(model.SerializeToString())


def garbled(name):
    """m.onnx with this name in Latin-1."""
    write_model(name="m.onnx")
    path = Path("m.onnx")
    path.write_bytes(path.read_bytes().replace(name.encode(), b"\xe4" * len(name)))


@pytest.mark.parametrize("name", ["conv1", "flat"])
def test_names_that_are_no_text_are_refused(name):
    garbled(name)
    check(refused("optimize", "m.onnx"), ["m.onnx: a name in it is no UTF-8 text", "again"])


def add_sequence(model):
    made = onnx.helper.make_tensor_sequence_value_info("s", onnx.TensorProto.FLOAT, None)
    model.graph.input.append(made)


def segment(model):
    model.graph.initializer[0].segment.begin = 1


def write_short_data(**entries):
    Path("w.bin").write_bytes(bytes(100))
    write_external("w.bin", **entries)


EXPORT = "export"
MODELS = {
    "a text file": (lambda: Path("m.onnx").write_text("hello\n"), "not an ONNX file", EXPORT),
    "an empty file": (lambda: Path("m.onnx").touch(), "holds no graph", EXPORT),
    "a folder": (lambda: Path("m.onnx").mkdir(), "m.onnx: is a folder", "give the path"),
    **{
        f"cut at {share:.0%}": (lambda s=share: write_cut(s), "m.onnx: not an ONNX file", "again")
        for share in (0.01, 0.1, 0.5, 0.9, 0.99)
    },
    "an attribute that Conv does not have": (
        lambda: write_model(attributes="<colour = 1>"),
        "the ONNX checker refuses it",
        "colour",
        EXPORT,
    ),
    "a tensor that nothing makes": (
        lambda: edit(lambda m: m.graph.node[0].input.__setitem__(1, "ghost")),
        "ghost",
        EXPORT,
    ),
    "a segment of a tensor": (lambda: edit(segment), "m.onnx: tensor 'w'", "whole tensors"),
    "an input that is a sequence": (lambda: edit(add_sequence), "m.onnx: input 's'", "tensors"),
    "a weight shorter than its shape": (
        lambda: edit(lambda m: m.graph.initializer[0].dims.__setitem__(0, 9)),
        "m.onnx",
        "w",
        EXPORT,
    ),
    "external data that is missing": (lambda: write_external("w.bin"), "'w'", "'w.bin'", "beside"),
    "external data above the model's folder": (
        lambda: write_external("../w.bin"),
        "'../w.bin' leaves the model's folder",
        "move the data",
    ),
    "external data at an absolute path": (
        lambda: write_external("/etc/hostname"),
        "'/etc/hostname' leaves the model's folder",
        "move the data",
    ),
    "external data that is a folder": (lambda: write_external("."), "'.'", "move the data"),
    "external data that is truncated": (write_short_data, "'w.bin' is truncated", "copy it again"),
    "truncated external data of no stated length": (
        lambda: write_short_data(length=None),
        "'w.bin' is truncated",
        "864",
        "copy it again",
    ),
    "external data shorter than the shape": (
        lambda: (write_short_data(length=80), Path("w.bin").write_bytes(bytes(1000))),
        "80 bytes where the shape needs 864",
        "save the model again",
    ),
    "external data at a negative offset": (
        lambda: write_short_data(offset=-50),
        "'w.bin': its offset",
        "save the model again",
    ),
    "external data at an offset that is no number": (
        lambda: write_short_data(offset="ten"),
        "'w.bin': its offset",
        "save the model again",
    ),
    "an input of size zero": (lambda: write_model(dims="1,3,0,8"), "1x3x0x8", EXPORT),
    "an absurd input": (lambda: write_model(dims="1,3,1000000,1000000"), "1000000", EXPORT),
    "a window larger than its input": (
        lambda: write_model(weight=np.ones((8, 3, 9, 9), np.float32)),
        "conv1: a 9×9 window does not fit its 8×8 input",
        "--input-shape",
    ),
    "a name of two lines": (
        write_two_lines,
        "a b: a 9×9 window does not fit its 8×8 input",
    ),
}


@pytest.mark.parametrize("command", ["optimize", "inspect"])
@pytest.mark.parametrize("row", MODELS.values(), ids=MODELS)
def test_a_model_is_refused_that_is(row, command):
    make, *words = row
    make()
    check(refused(command, "m.onnx"), words)


ATTRIBUTES = {
    "strides": "<strides = [1, 1, 1]>",
    "a stride of zero": "<strides = [0, 0]>",
    "a vast stride": "<strides = [1099511627776, 1]>",
    "pads": "<pads = [1, 1]>",
    "dilations": "<dilations = [1]>",
    "auto_pad": '<auto_pad = "NONE">',
}


@pytest.mark.parametrize("attributes", ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_an_attribute_that_no_convolution_has_names_the_node(attributes):
    write_model(attributes=attributes)
    check(refused("inspect", "m.onnx"), ["conv1: ", attributes.split()[0][1:], EXPORT])
    refused("optimize", "m.onnx")


def test_what_only_the_runtime_refuses_is_said_of_the_users_own_file():
    write_model(dims="1,3")
    line = refused("optimize", "m.onnx")
    check(line, ["loading m.onnx: ONNX Runtime reports"])
    assert tempfile.gettempdir() not in line


def test_a_weight_without_elements_is_no_site():
    write_model(weight=np.ones((8, 3, 0, 3), np.float32))
    result = CliRunner().invoke(app, ["inspect", "m.onnx"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert "its weight has no elements" in result.stdout
    check(refused("optimize", "m.onnx"), ["m.onnx", "ONNX Runtime reports"])


def test_a_weight_of_unknown_type_is_no_site():
    write_model(data_type=99)
    result = CliRunner().invoke(app, ["inspect", "m.onnx"])
    assert result.exit_code == 0
    assert "its weight is of an unknown type" in result.stdout


@pytest.mark.parametrize("command", ["inspect", "optimize"])
def test_a_model_that_states_no_version_of_the_standard_operators_is_refused(command):
    model = write_model()
    model.opset_import[0].domain = "Conv"  # the runtime takes that for the newest
    Path("m.onnx").write_bytes(model.SerializeToString())
    check(refused(command, "m.onnx"), ["shapes cannot be inferred", "export the model again"])


def test_a_model_whose_convolutions_are_too_small_to_gain_is_a_clear_no():
    write_model(weight=KERNEL[:, :, :2, :2])  # 96 products; 8 terms, the fewest tried, take 120
    result = CliRunner().invoke(app, ["optimize", "m.onnx"])
    assert result.exit_code == 1
    assert "nothing written" in result.stdout
    assert "no candidate rank saves multiply-adds" in " ".join(result.stdout.split())


@pytest.mark.parametrize("is_raw", [True, False])
def test_a_tensor_without_axes_that_holds_many_elements_is_named(is_raw):
    model = write_model()
    tensor = model.graph.initializer[0]
    if not is_raw:
        tensor.ClearField("raw_data")
        tensor.float_data.extend(KERNEL.ravel())
    del tensor.dims[:]
    Path("m.onnx").write_bytes(model.SerializeToString())
    check(refused("inspect", "m.onnx"), ["tensor 'w'", "as its shape () has", "save the model"])


# --- shapes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["optimize", "benchmark"])
def test_a_dynamic_size_that_nothing_fixes_is_named_with_what_to_pass(command):
    write_model(dims="N,3,height,width")
    words = ["dimension 2 ('height')", "--data", "--input-shape x:?x3x?x?"]
    check(refused(command, "m.onnx"), words)


BATCH = "x: Nx3x8x8"
SHAPES = {
    "without a colon": (["--input-shape", "1x3x8x8"], "'1x3x8x8'", "name:1x3x224x224"),
    "without sizes": (["--input-shape", "x:"], "'x:'", "name:1x3x224x224"),
    "with a size of zero": (["--input-shape", "x:1x3x0x8"], "x:1x3x0x8", "name:1x3x224x224"),
    "with a size that is no number": (["--input-shape", "x:1x3x²x8"], "²", "name:1x3x224x224"),
    "of an unknown input": (["--input-shape", "z:1x3x8x8"], "z: no such input", BATCH),
    "of another rank": (["--input-shape", "x:1x3x8"], "x:1x3x8 does not fit", BATCH, "keep"),
    "of another size": (["--input-shape", "x:1x4x8x8"], "x:1x4x8x8 does not fit", BATCH, "keep"),
    "beyond any memory": (["--input-shape", f"x:{'9' * 400}x3x8x8"], "elements", "--input-shape"),
    "against --batch": (["--input-shape", "x:1x3x8x8", "--batch", 4], "--batch 4", "one of them"),
}


@pytest.mark.parametrize("row", SHAPES.values(), ids=SHAPES)
def test_an_input_shape_is_refused(row):
    arguments, *words = row
    write_model()
    check(refused("optimize", "m.onnx", *arguments), words)


@pytest.mark.parametrize("command", ["optimize", "inspect", "benchmark"])
def test_a_batch_against_a_fixed_one_is_refused(command):
    write_model(dims="2,3,8,8")
    check(refused(command, "m.onnx", "--batch", 4), ["--batch 4", "fixed batch of 2", "leave"])


# --- data -----------------------------------------------------------------------------------


def npz(**arrays):
    np.savez("d.npz", **arrays)


def write_archive(text, name="x.npy"):
    with zipfile.ZipFile("d.npz", "w") as archive:
        archive.writestr(name, text)


def write_array():
    np.save("d.npy", IMAGES)
    Path("d.npy").rename("d.npz")


def write_damaged():
    np.savez_compressed("d.npz", x=IMAGES)
    damaged = bytearray(Path("d.npz").read_bytes())
    damaged[300:400] = b"\xff" * 100
    Path("d.npz").write_bytes(damaged)


def write_half():
    npz(x=IMAGES)
    Path("d.npz").write_bytes(Path("d.npz").read_bytes()[:900])


SAVE = "numpy.savez"
ARRAYS = {
    "a missing file": (lambda: None, "no such file", "folder of images"),
    "an array of another name": (lambda: npz(a=IMAGES, b=IMAGES), "input x", "a, b", "name the"),
    "another shape": (lambda: npz(x=IMAGES[:, :, :4]), "3x4x8 do not fit", BATCH, "check --data"),
    "another rank": (lambda: npz(x=IMAGES[0]), "do not fit", BATCH, "check --data"),
    "complex numbers": (lambda: npz(x=IMAGES + 0j), "'x' of complex64", "numbers"),
    "texts": (lambda: npz(x=np.array(["a", "b"])), "'x' of <U1", "numbers"),
    "other counts": (lambda: npz(x=IMAGES, label=LABELS[:4]), "x 6, label 4", "row per sample"),
    "no samples": (lambda: npz(x=IMAGES[:0], label=LABELS[:0]), "no samples", "at least one"),
    "no arrays": (lambda: npz(), "input x", "name the arrays"),
    "a single number": (lambda: npz(x=np.float32(1)), "'x' of float32", "batch"),
    "objects": (lambda: npz(x=np.array([{}, 1], dtype=object)), "allow_pickle", SAVE),
    "a cut file": (write_half, "not a readable .npz", SAVE),
    "damage in the middle": (write_damaged, "not a readable .npz", SAVE),
    "an .npy file by another name": (write_array, "not a zip archive", SAVE),
    "an archive of texts": (lambda: write_archive("hello", "x"), "'x' of |S5", "numbers"),
    "labels out of range": (
        lambda: npz(x=IMAGES, label=LABELS + 50),
        "is out of range",
        "0..7",
        "check",
    ),
    "negative labels": (lambda: npz(x=IMAGES, label=LABELS - 20), "label -", "0..7", "check"),
    "a label for all": (lambda: npz(x=IMAGES, label=np.int64(3)), "'label' of int64", "every"),
    "labels in words": (lambda: npz(x=IMAGES, label=np.array([*"abcdef"])), "'label' of <U1"),
    "labels that are no classes": (
        lambda: npz(x=IMAGES, label=2 * np.eye(6, dtype=int)),
        "of shape (",
        "convert the labels",
    ),
}


@pytest.mark.parametrize("row", ARRAYS.values(), ids=ARRAYS)
def test_data_is_refused_with(row):
    make, *words = row
    write_model()
    make()
    check(refused("optimize", "m.onnx", "--data", "d.npz", "--metric", "top1"), words)


def test_labels_in_a_column_are_classes():
    write_model()
    npz(x=IMAGES, label=LABELS[:, None])
    verify = ["verify", "m.onnx", "m.onnx", "--data", "d.npz", "--metric", "top1"]
    column = CliRunner().invoke(app, verify)
    npz(x=IMAGES, label=LABELS)
    assert column.stdout == CliRunner().invoke(app, verify).stdout
    assert column.exit_code == 0


def test_sources_with_and_without_labels_do_not_mix():
    write_model()
    npz(x=IMAGES, label=LABELS)
    np.savez("e.npz", x=IMAGES)
    line = refused("optimize", "m.onnx", "--data", "d.npz", "--data", "e.npz")
    check(line, ["d.npz, e.npz", "sources of one kind"])


def test_data_that_calibrates_may_not_judge():
    write_model()
    npz(x=IMAGES, label=LABELS)
    line = refused("optimize", "m.onnx", "--data", "d.npz", "--calibration", "./d.npz")
    check(line, ["d.npz", "--calibration", "give others"])


def spoil(content):
    write_images()
    Path("f/b.png").write_bytes(content)


def write_bomb():
    """A PNG header that claims 100,000 × 100,000 pixels."""
    write_images()
    head = bytearray(Path("f/b.png").read_bytes())
    head[16:24] = (100_000).to_bytes(4, "big") * 2
    head[29:33] = zlib.crc32(bytes(head[12:29])).to_bytes(4, "big")
    Path("f/b.png").write_bytes(head)


LINE = "write each line as file,class number"
FOLDERS = {
    "no images": (lambda: write_images(names=()), "f: holds no images", ".png"),
    "no image that labels.csv names": (
        lambda: write_images(labels="z.png,1\n"),
        "f: holds no images that labels.csv names",
        ".png",
    ),
    "an image that is none": (lambda: spoil(b"hello"), "f/b.png: not a readable", "remove it"),
    "an empty image": (lambda: spoil(b""), "f/b.png: not a readable image", "remove it"),
    "an image of absurd size": (write_bomb, "f/b.png: not a readable image", "remove it"),
    "a line without a label": (lambda: write_images(labels="a.png\n"), "'a.png'", LINE),
    "a label in words": (lambda: write_images(labels="a.png,1\nb.png,cat\n"), "b.png,cat", LINE),
    "a first label in words": (lambda: write_images(labels="a.png,cat\nb.png,1\n"), "cat", LINE),
    "a broken number": (lambda: write_images(labels="a.png,1.5\n"), "a.png,1.5", LINE),
    "a vast number": (lambda: write_images(labels=f"a.png,{'9' * 30}\n"), "a.png,999", LINE),
    "labels in another encoding": (
        lambda: write_images(labels="\xe4.png,1\n"),
        "f/labels.csv: not a readable CSV",
        "UTF-8",
    ),
    "a quote that never ends": (
        lambda: write_images(labels='"a.png,1\n' + 200_000 * "x"),
        "f/labels.csv: not a readable CSV",
    ),
    "labels out of range": (lambda: write_images(labels="a.png,99\n"), "label 99", "0..7", "check"),
}


@pytest.mark.parametrize("row", FOLDERS.values(), ids=FOLDERS)
def test_a_folder_is_refused_with(row):
    make, *words = row
    write_model()
    make()
    check(refused("optimize", "m.onnx", "--data", "f"), words)


def test_images_do_not_fit_two_inputs():
    edit(lambda m: m.graph.input.append(onnx.helper.make_tensor_value_info("z", 1, [1])))
    write_images()
    check(refused("verify", "m.onnx", "m.onnx", "--data", "f"), ["f: ", "not 2", ".npz"])


def test_images_of_different_sizes_need_a_crop():
    write_model(dims="N,3,height,width")
    write_images()
    Image.new("RGB", (9, 9)).save("f/b.png")
    check(refused("optimize", "m.onnx", "--data", "f"), ["f: ", "sizes", "--preprocess"])


RECIPES = {
    "broken JSON": ("{", "not a recipe"),
    "no object": ("[]", "mean"),
    "an unknown field": ('{"colour": 1}', "expected an object", "channel_order"),
    "a mean for two channels": ('{"mean": [0, 1]}', "2 values of mean", "3 channels", "choose"),
    "a mean that is no list": ('{"mean": 3}', "mean must be a list"),
    "no mean": ('{"mean": []}', "mean must be a list"),
    "an infinite mean": ('{"mean": [1e999]}', "mean must be a list"),
    "a vast mean": (f'{{"mean": [1{"0" * 400}]}}', "mean must be a list"),
    "a std of zero": ('{"std": [0]}', "std must not contain zero"),
    "a std of NaN": ('{"std": [NaN]}', "std must be a list"),
    "a scale in words": ('{"scale": "x"}', "scale must be a number"),
    "a negative crop": ('{"crop": -1}', "crop must be", "from 1 to"),
    "a vast crop": ('{"crop": 1000000}', "crop must be", "from 1 to"),
    "a crop of true": ('{"crop": true}', "crop must be", "from 1 to"),
    "a layout of its own": ('{"layout": "CHW"}', "NCHW or NHWC"),
    "an order of its own": ('{"channel_order": 3}', "RGB or BGR"),
    "a crop of another size": ('{"crop": 4}', "4x4", BATCH, "check"),
}


@pytest.mark.parametrize("row", RECIPES.values(), ids=RECIPES)
def test_a_recipe_is_refused_with(row):
    text, *words = row
    write_model()
    write_images()
    Path("r.json").write_text(text)
    line = refused("optimize", "m.onnx", "--data", "f", "--preprocess", "r.json")
    check(line, ["--preprocess", *words])


@pytest.mark.parametrize("name", ["sepia", "none.json"])
def test_an_unknown_preprocessing_is_refused(name):
    write_model()
    line = refused("optimize", "m.onnx", "--preprocess", name)
    check(line, [f"--preprocess {name}: ", "give a .json file"])


# --- outputs --------------------------------------------------------------------------------

OTHER = "choose another name"
PLACES = {
    "an output that exists": (["-o", "old.onnx"], "old.onnx: exists", "--overwrite"),
    "a plan that exists": (["-o", "other.onnx"], "other.plan.json: exists", "--overwrite"),
    "data that exist": (["-o", "stale.onnx"], "stale.onnx.data: exists", "--overwrite"),
    "a missing folder": (["-o", "no/o.onnx"], "no/o.onnx: cannot be written", "name a folder"),
    "a file as folder": (["-o", "m.onnx/o.onnx"], "m.onnx/o.onnx: cannot be", "name a folder"),
    "a folder": (["-o", "folder"], "folder: is a folder", "name a file"),
    "no name": (["-o", ""], "is a folder", "name a file"),
    "the input": (["-o", "m.onnx", "--overwrite"], "m.onnx: this run reads", OTHER),
    "the input by another path": (["-o", "folder/../m.onnx", "--overwrite"], "reads", OTHER),
    "the samples": (["-o", "d.npz", "--data", "d.npz", "--overwrite"], "d.npz: ", OTHER),
    "a report of unknown kind": (["--report", "r.txt"], "--report r.txt", ".json or .md"),
    "a report that exists": (["--report", "old.json"], "old.json: exists", "--overwrite"),
    "a report in a missing folder": (["--report", "no/r.md"], "no/r.md: cannot be", "name a"),
    "a report in place of the plan": (
        ["-o", "o.onnx", "--report", "o.plan.json"],
        "o.plan.json: this run",
        OTHER,
    ),
    "a name longer than a disk allows": (["-o", 300 * "o"], "too long", "check the path"),
}


@pytest.mark.parametrize("row", PLACES.values(), ids=PLACES)
def test_a_place_to_write_is_refused_that_is(row):
    arguments, *words = row
    write_model()
    npz(x=IMAGES)
    for name in ("old.onnx", "other.plan.json", "stale.onnx.data", "old.json"):
        Path(name).write_text("mine")
    Path("folder").mkdir()
    check(refused("optimize", "m.onnx", *arguments), words)


# --- options --------------------------------------------------------------------------------

LEAST = "must be at least 1"
NO_RANK = "is no rank; give 32 or 1.5c"
DROP = "0.01, a relative one as 1%"
OPTIONS = {
    "an unknown provider": (["--provider", "tpu"], "--provider tpu: unknown", "cpu, cuda"),
    "a provider option without a value": (["--provider-option", "a"], "'a'", "KEY=VALUE"),
    "a provider option without a name": (["--provider-option", "=1"], "'='", "KEY=VALUE"),
    "an unknown form": (["--form", "cp9"], "--form cp9: unknown", "auto, cp3, cp4"),
    "an unknown strategy": (["--strategy", "luck"], "--strategy luck: unknown", "bisect"),
    "an unknown metric": (["--data", "d.npz", "--metric", "iou"], "--metric iou", "top1, top5"),
    "a metric without data": (["--metric", "top1"], "--metric top1", "needs --data"),
    "a metric with --max-error": (
        ["--data", "d.npz", "--metric", "top1", "--max-error", "0.1"],
        "--metric",
        "leave it or --max-error out",
    ),
    "a metric that needs other labels": (
        ["--data", "d.npz", "--metric", "psnr"],
        "psnr",
        "choose another --metric",
    ),
    "labels that are not there": (
        ["--data", "plain.npz", "--metric", "top1"],
        "plain.npz has none",
        "agreement",
    ),
    "a negative drop": (["--max-drop", "-1"], "'-1'", DROP),
    "a drop in words": (["--max-drop", "little"], "'little'", DROP),
    "a drop of NaN": (["--max-drop", "nan"], "'nan'", DROP),
    "a drop of nothing": (["--max-drop", "%"], "'%'", DROP),
    "a drop of two signs": (["--max-drop", "1%%"], "'1%%'", DROP),
    "a drop of half of all": (
        ["--data", "d.npz", "--metric", "cosine", "--max-drop", "0.5"],
        "cosine lies between 0 and 1",
        "did you mean 1%?",
    ),
    "a drop in points": (
        ["--data", "d.npz", "--metric", "agreement", "--max-drop", "2"],
        "agreement lies between 0 and 1",
        "did you mean 2%?",
    ),
    "a drop without data": (["--max-drop", "0.01"], "--max-drop 0.01", "needs --data"),
    "two budgets": (
        ["--data", "d.npz", "--max-drop", "0.01", "--max-error", "0.1"],
        "--max-drop and --max-error exclude each other",
        "give one",
    ),
    "an error above one": (["--max-error", "2"], "--max-error 2", "between 0 and 1"),
    "an error of NaN": (["--max-error", "nan"], "--max-error nan", "between 0 and 1"),
    "a rank without a glob": (["--rank", "32"], "'32'", "'GLOB=32'"),
    "a rank of no site": (["--rank", "fc*=32"], "'fc*=32'", "matches no site", "inspect"),
    "a rank too large": (["--rank", "conv1=999"], "conv1: rank 999", "1..27", "'conv1=8'"),
    "a rank in words": (["--rank", "conv1=big"], "'big'", NO_RANK),
    "a rank of nothing": (["--rank", "conv1="], "'conv1='", NO_RANK),
    **{
        f"a rank of {rank}": (["--rank", f"conv1={rank}"], f"'{rank}'", NO_RANK)
        for rank in ("0", "-4", "1.5", "nan", "0c", "-1c", "nanc", "infc", "c")
    },
    "a glob of no site": (["--include", "fc*"], "'fc*'", "matches no site", "inspect"),
    "an exclusion of no site": (["--exclude", "fc*"], "'fc*'", "matches no site", "inspect"),
    "no samples": (["--samples", "0"], "--samples 0", LEAST),
    "a batch of none": (["--batch", "0"], "--batch 0", LEAST),
    "a negative batch": (["--batch", "-2"], "--batch -2", LEAST),
    "no jobs": (["--jobs", "0"], "--jobs", "equal to 1", "--help"),
    "negative threads": (["--threads", "-1"], "--threads -1", LEAST),
    "a negative seed": (["--seed", "-1"], "--seed", "greater than or equal to 0", "--help"),
    "a batch in words": (["--batch", "many"], "--batch", "valid integer", "optimize --help"),
    "too few iterations": (["--iterations", "1"], "--iterations", "equal to 8", "--help"),
    "an unknown option": (["--rnak", "3"], "--rnak", "--rank", "optimize --help"),
    "an argument too many": (["other.onnx"], "other.onnx", "optimize --help"),
    "an option without its value": (["--data"], "--data", "--help"),
}


@pytest.mark.parametrize("row", OPTIONS.values(), ids=OPTIONS)
def test_optimize_refuses(row):
    arguments, *words = row
    write_model()
    npz(x=IMAGES, label=LABELS)
    np.savez("plain.npz", x=IMAGES)
    check(refused("optimize", "m.onnx", "-o", "o.onnx", *arguments), words)


WROTE = "give a plan that a run wrote"
PLANS = {
    "garbage": (lambda: Path("p.json").write_bytes(b"\xff\x00"), "not a plan file", WROTE),
    "no JSON": (lambda: Path("p.json").write_text("{"), "not a plan file", WROTE),
    "another JSON": (lambda: Path("p.json").write_text("[1]"), "not a plan file", WROTE),
    "a bottomless JSON": (lambda: Path("p.json").write_text("[" * 99_999), "not a plan", WROTE),
    "a missing file": (lambda: None, "No such file", WROTE),
    "another version": (lambda: write_plan(plan_version=1), "version 1, not 2", "again"),
    "sites that are none": (lambda: write_plan(sites=[1]), "not a plan file", WROTE),
    "half a rank": (
        lambda: write_plan(sites={"conv1": {"form": "cp3", "rank": 1.5}}),
        "1.5 is no rank",
        WROTE,
    ),
    "a negative seed": (lambda: write_plan(fits={"seed": -1}), "-1 is no rank or seed", WROTE),
}


@pytest.mark.parametrize("row", PLANS.values(), ids=PLANS)
def test_a_plan_is_refused_that_is(row):
    make, *words = row
    write_model()
    make()
    check(refused("optimize", "m.onnx", "--plan", "p.json"), ["p.json", *words])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_gives_no_numbers_is_refused_before_anything_is_compared(value):
    """One layer has a bias that is no number; the other could be replaced."""
    rng, make = np.random.default_rng(0), onnx.helper.make_node
    kernels = {f"w{i}": rng.standard_normal((8, 8, 3, 3)).astype(np.float32) for i in range(2)}
    bias = np.where(np.arange(8) == 3, value, 0).astype(np.float32)
    declare = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            make("Conv", ["x", "w0", "b"], ["h"], "first", pads=[1] * 4),
            make("Conv", ["h", "w1"], ["y"], "second", pads=[1] * 4),
        ],
        "g",
        [declare("x", 1, [1, 8, 6, 6])],
        [declare("y", 1, [1, 8, 6, 6])],
        [onnx.numpy_helper.from_array(v, n) for n, v in {**kernels, "b": bias}.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 13)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), "m.onnx")
    options = ["--rank", "second=4", "--form", "svd", "--iterations", "8", "--no-cache"]
    check(refused("optimize", "m.onnx", *options), ["'y'", "NaN or infinite before", "weights"])


def test_a_plan_for_another_model_names_the_site():
    write_model()
    write_plan(sites={"conv9": {"form": "cp3", "rank": 4}})
    check(refused("optimize", "m.onnx", "--plan", "p.json"), ["'conv9'", "inspect"])


def test_a_plan_with_an_unknown_form_names_those_there_are():
    write_model()
    write_plan(sites={"conv1": {"form": "cp9", "rank": 4}})
    check(refused("optimize", "m.onnx", "--plan", "p.json"), ["conv1", "'cp9'", "cp3, cp4"])


def test_a_plan_names_every_rank_itself():
    write_model()
    write_plan()
    line = refused("optimize", "m.onnx", "--plan", "p.json", "--rank", "conv1=4")
    check(line, ["--plan and --rank exclude each other"])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
def test_a_provider_that_this_runtime_lacks_is_missing_not_wrong(command):
    runtime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in runtime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    write_model()
    profile = ["--profile"] if command == ("inspect",) else []
    line = refused(*command, "m.onnx", "--provider", "cuda", *profile, code=MISSING)
    check(line, ["provider cuda", "CUDAExecutionProvider", "pip install"])


OTHERS = {
    "a missing argument": ([], "Missing argument", "verify --help"),
    "a statistic that is none": (["--check-error-stat", "sum"], "sum", "elemwise, max"),
    "a statistic that bounds nothing": (["--check-error-stat", "max"], "max", "--rtol or --atol"),
    "a statistic of an unknown output": (
        ["--check-error-stat", "z:max", "--atol", "1"],
        "z:max: no such output",
        "gives y",
    ),
    "a tolerance of NaN": (["--rtol", "nan"], "--rtol nan", "from 0 up", "OUTPUT:1e-3"),
    "a negative tolerance": (["--atol", "y:-1"], "--atol y:-1", "from 0 up"),
    "an infinite tolerance": (["--atol", "inf"], "--atol inf", "from 0 up"),
    "a tolerance in words": (["--rtol", "y:little"], "--rtol y:little", "from 0 up"),
    "a tolerance of an unknown output": (["--rtol", "z:1"], "z:1.0: no such output", "gives y"),
    "an unknown provider of the reference": (["--reference-provider", "abacus"], "abacus", "cpu"),
    "no channels to agree": (["--top-k", "0"], "--top-k", "verify --help"),
    "a drop without data": (["--max-drop", "1%"], "--max-drop 1%", "needs --data"),
    "a drop in words": (["--max-drop", "little", "--data", "d.npz"], "'little'", DROP),
}


@pytest.mark.parametrize("row", OTHERS.values(), ids=OTHERS)
def test_verify_refuses(row):
    arguments, *words = row
    write_model()
    models = ["m.onnx", "m.onnx"] if arguments else ["m.onnx"]
    check(refused("verify", *models, *arguments), words)


@pytest.mark.parametrize("command", ["verify", "benchmark"])
def test_models_of_different_inputs_are_not_compared(command):
    write_model("a.onnx")
    edit(lambda m: m.graph.input.append(onnx.helper.make_tensor_value_info("z", 1, [1])))
    check(
        refused(command, "a.onnx", "m.onnx"),
        ["different inputs", "x, z", "same inputs and outputs"],
    )


def test_every_output_is_judged_where_one_has_a_statistic_of_its_own():
    """The others are then judged elementwise."""
    for name, shift in (("a.onnx", 0.0), ("m.onnx", 1.0)):
        model = onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y, float[2] z)'
            f"<float s = {{{shift}}}> {{ y = Relu(x) z = Add(y, s) }}"
        )
        Path(name).write_bytes(model.SerializeToString())
    bounds = ["--check-error-stat", "y:max", "--atol", "0.1"]
    result = CliRunner().invoke(app, ["verify", "a.onnx", "m.onnx", *bounds])
    assert result.exit_code == 1
    assert "FAILED z" in result.stdout


def test_a_command_that_does_not_exist_is_one_line():
    check(refused("optimise"), ["optimise", "--help"])


def test_without_arguments_the_help_is_shown():
    result = CliRunner().invoke(app, [])
    assert result.exit_code == WRONG_USE
    assert "Usage:" in result.output
    assert "error" not in result.output


def test_fine_tuning_without_torch_says_how_to_install_it(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "torch" else real(name)
    )
    write_model()
    line = refused("finetune", "m.onnx", "m.onnx", "-o", "o.onnx", code=MISSING)
    check(line, ["PyTorch", "pip install 'onnxcp[finetune]'"])
