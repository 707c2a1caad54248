"""The original is judged before anything is made of it."""

import json
import os
import pathlib

import numpy as np
import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner

from onnxcp.cli import app

pytestmark = pytest.mark.usefixtures("quiet")  # no claim here is about time

ROOT = pathlib.Path(__file__).parents[2]
MODEL, DATA = ROOT / "models/digits.onnx", ROOT / "models/digits.npz"
REAL = pathlib.Path(os.environ.get("ONNXCP_DATA") or ROOT.parent / "shared/data")
CLASSES, SIDE = 16, 8


def onnxcp(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def judged(model, *options):
    """The cheapest command in which accuracy judges: a model against itself."""
    return onnxcp("verify", model, model, "--max-drop", "0.01", "--threads", 1, *options)


def said(ended):
    """What a command that was refused says."""
    assert (ended.exit_code, ended.stdout) == (2, "")
    return ended.stderr


def saved(path, nodes, stored, outputs=("n", CLASSES)):
    image = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, SIDE, SIDE])
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, list(outputs))
    tensors = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in stored.items()]
    graph = helper.make_graph(nodes, "g", [image], [result], tensors)
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=opsets), path)
    return path


def images(count=96, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 1, SIDE, SIDE)).astype(np.uint8)


@pytest.fixture
def labels_of(tmp_path):
    """The bundled samples with other labels."""

    def make(change):
        stored, path = np.load(DATA), tmp_path / "data.npz"
        np.savez(path, input=stored["input"][:300], label=change(stored["label"][:300]))
        return path

    return make


@pytest.fixture
def normalizing(tmp_path):
    """A network that normalizes its input by the statistics of images in 0..1, and averages."""
    stored = {
        "scale": np.ones(1, np.float32),
        "bias": np.zeros(1, np.float32),
        "mean": np.full(1, 0.5, np.float32),
        "variance": np.full(1, 1 / 12, np.float32),
    }
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("BatchNormalization", ["same", *stored], ["y"], name="norm"),
    ]
    return saved(tmp_path / "m.onnx", nodes, stored, ("n", 1, SIDE, SIDE))


@pytest.fixture
def scoring(tmp_path):
    """Names one of 16 classes by images of 0..255; what is far smaller is lost in its bias."""
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((SIDE * SIDE, CLASSES)).astype(np.float32)
    weight -= weight.mean(axis=0)
    bias = np.zeros(CLASSES, np.float32)
    bias[5] = 40.0
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["y"]),
    ]
    return saved(tmp_path / "m.onnx", nodes, {"weight": weight, "bias": bias})


def test_a_model_whose_weights_are_inputs_too_says_what_its_first_normalization_expects(
    normalizing, tmp_path
):
    model = onnx.load(normalizing)
    model.ir_version = 3
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1, np.float32), "unread"))
    model.graph.input.append(helper.make_tensor_value_info("unread", 1, [1]))
    onnx.save(model, tmp_path / "old.onnx")
    np.savez(tmp_path / "data.npz", x=images().astype(np.float32))
    message = said(
        onnxcp("optimize", tmp_path / "old.onnx", "--data", tmp_path / "data.npz", "--threads", 1)
    )
    assert "times as large as norm expects" in message


def test_labels_that_start_at_one_are_recognized(labels_of):
    message = said(judged(MODEL, "--data", labels_of(lambda label: label + 1)))
    assert "labels seem to start at 1" in message
    assert "with 1 subtracted from the labels it is 100% of" in message


def test_labels_in_another_order_are_recognized(labels_of):
    order = np.array([3, 0, 4, 1, 2, 9, 5, 6, 8, 7])
    message = said(judged(MODEL, "--data", labels_of(lambda label: order[label])))
    assert "labels count the classes in another order" in message


def test_labels_that_have_nothing_to_do_with_the_samples_are_refused(labels_of):
    shuffled = np.random.default_rng(0).permutation
    message = said(judged(MODEL, "--data", labels_of(shuffled)))
    assert "a guess has" in message and "no usual preprocessing changes that" in message


def test_what_is_accepted_is_said_and_goes_on(labels_of):
    data = labels_of(lambda label: np.roll(label, 1))
    ended = judged(MODEL, "--data", data, "--accept-baseline", "--json")
    assert ended.exit_code == 0
    found = json.loads(ended.stdout)["baseline"]
    assert "a guess has" in found["finding"] and found["is_good"] is False


def test_right_labels_pass(labels_of):
    ended = judged(MODEL, "--data", labels_of(lambda label: label), "--json")
    assert ended.exit_code == 0
    found = json.loads(ended.stdout)["baseline"]
    assert (found["by"], found["finding"], found["is_good"]) == ("top1", None, True)


def test_a_handful_of_samples_passes(tmp_path):
    ended = judged(MODEL, "--data", f"{DATA}[0:3]")
    assert ended.exit_code == 0


def test_optimize_refuses_before_it_begins(labels_of, tmp_path):
    data = labels_of(lambda label: label + 1)
    ended = onnxcp("optimize", MODEL, "--data", data, "-o", tmp_path / "out.onnx", "--threads", 1)
    assert "labels seem to start at 1" in said(ended)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.npz"]


def test_images_of_another_size_than_the_first_normalization_expects_are_refused(
    normalizing, tmp_path
):
    np.savez(tmp_path / "d.npz", x=images())
    message = said(judged(normalizing, "--data", tmp_path / "d.npz", "--metric", "cosine"))
    assert "as large as norm expects: with --preprocess unit it is 1.0 times" in message


def test_images_as_the_first_normalization_expects_them_pass(normalizing, tmp_path):
    np.savez(tmp_path / "d.npz", x=images())
    data = ("--data", tmp_path / "d.npz", "--preprocess", "unit")
    assert judged(normalizing, *data, "--metric", "cosine").exit_code == 0


def test_images_scaled_twice_are_refused(normalizing, tmp_path):
    np.savez(tmp_path / "d.npz", x=(images() / 255).astype(np.float32))
    data = ("--data", tmp_path / "d.npz", "--preprocess", "unit")
    message = said(judged(normalizing, *data, "--metric", "cosine"))
    assert "less varied than norm expects: with --preprocess none" in message


def test_a_normalization_without_statistics_says_nothing(normalizing, tmp_path):
    model = onnx.load(normalizing)
    for tensor in model.graph.initializer:
        value = float(tensor.name in ("scale", "variance"))
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(1, value, np.float32), tensor.name))
    onnx.save(model, normalizing)
    np.savez(tmp_path / "d.npz", x=images())
    assert judged(normalizing, "--data", tmp_path / "d.npz", "--metric", "cosine").exit_code == 0


def test_a_network_fed_far_too_small_values_is_recognized_without_labels(scoring, tmp_path):
    np.savez(tmp_path / "d.npz", x=images())
    data = ("--data", tmp_path / "d.npz", "--preprocess", "unit")
    message = said(judged(scoring, *data))
    assert "one class for 100% of" in message and "far too small" in message
    assert "with --preprocess none it tells them apart" in message


def test_a_network_fed_as_it_should_be_passes_without_labels(scoring, tmp_path):
    np.savez(tmp_path / "d.npz", x=images())
    assert judged(scoring, "--data", tmp_path / "d.npz").exit_code == 0


def test_samples_that_look_alike_pass(scoring, tmp_path):
    alike = np.repeat(images(1), 96, axis=0)
    np.savez(tmp_path / "d.npz", x=alike)
    assert judged(scoring, "--data", tmp_path / "d.npz").exit_code == 0


def test_images_worse_than_a_gray_one_are_refused(normalizing, tmp_path):
    x = images(8)
    y = ((x / 255 - 0.5) * np.sqrt(12)).astype(np.float32)  # what the network gives for 0..1
    np.savez(tmp_path / "d.npz", x=x, label=y)
    message = said(judged(normalizing, "--data", tmp_path / "d.npz", "--metric", "psnr"))
    assert "that of a gray image" in message and "with --preprocess unit" in message
    right = ("--data", tmp_path / "d.npz", "--metric", "psnr", "--preprocess", "unit")
    assert judged(normalizing, *right).exit_code == 0


@pytest.mark.skipif(not REAL.is_dir(), reason="needs real models: set ONNXCP_DATA")
def test_raw_images_name_the_preset_that_works(tmp_path):
    model, data = REAL / "cifar10/resnet20.onnx", f"{REAL}/cifar10/test.npz[0:150]"
    ended = onnxcp("optimize", model, "--data", data, "-o", tmp_path / "out.onnx", "--threads", 1)
    assert "with --preprocess cifar10 it is 9" in said(ended)
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(not REAL.is_dir(), reason="needs real models: set ONNXCP_DATA")
@pytest.mark.parametrize("classes", [(3, 5), (2, 3, 4), (5,)], ids=str)
@pytest.mark.parametrize("count", [30, 60, 100])
def test_data_of_a_few_classes_are_no_reason_to_refuse_a_model_of_ten(classes, count, tmp_path):
    model, path = REAL / "odd/winml_pytorch_cifar_ImageClassifier.onnx", tmp_path / "data.npz"
    stored, recipe = np.load(REAL / "cifar10/test.npz"), tmp_path / "half.json"
    of_each = [np.flatnonzero(stored["label"] == c)[:count] for c in classes]
    places = np.stack(of_each, axis=1).ravel()
    np.savez(path, modelInput=stored["input"][places], label=stored["label"][places])
    recipe.write_text('{"scale": 0.00392156862745098, "mean": [0.5], "std": [0.5]}')
    ended = judged(model, "--data", path, "--preprocess", recipe, "--json")
    assert ended.exit_code == 0
    assert json.loads(ended.stdout)["baseline"]["finding"] is None
