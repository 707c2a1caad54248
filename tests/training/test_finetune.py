"""The command: weights out, trained, and back into the same graph."""

import json
import pathlib

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from onnxcp.cli import app
from onnxcp.errors import UsageError
from onnxcp.graph import metadata, provenance
from onnxcp.graph.weights import chains, rank_one, trainable, with_weights

pytestmark = pytest.mark.usefixtures("quiet")  # no claim here is about time

ROOT = pathlib.Path(__file__).parents[2]
MODEL, DATA = ROOT / "models/digits.onnx", ROOT / "models/digits.npz"
SHORT = ("--epochs", 2, "--batch-size", 32, "--threads", 1)


def onnxcp(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def finetune(candidate, output, *more):
    return onnxcp("finetune", MODEL, candidate, "-o", output, "--data", DATA, *SHORT, *more)


@pytest.fixture(scope="module")
def chained(tmp_path_factory):
    """The digits network at ranks that cost it accuracy."""
    path = tmp_path_factory.mktemp("chained") / "chained.onnx"
    ended = onnxcp("optimize", MODEL, "-o", path, "--rank", "*=0.25c", "--threads", 1)
    assert ended.exit_code == 0, ended.output
    return path


@pytest.fixture(scope="module")
def tuned(chained, tmp_path_factory):
    path = tmp_path_factory.mktemp("tuned") / "tuned.onnx"
    report = path.with_suffix(".json")
    ended = finetune(chained, path, "--report", report)
    assert ended.exit_code == 0, ended.output
    return path, json.loads(report.read_text())


def test_training_without_labels_recovers_accuracy(tuned):
    _, report = tuned
    assert report["accuracy"]["drop"] < report["accuracy_before"]["drop"]
    assert report["best_epoch"] > 0
    assert report["parity"] < 1e-3


def test_only_the_weights_of_chains_and_what_is_said_of_them_change(chained, tuned):
    before, after = (onnx.load(str(path)) for path in (chained, tuned[0]))
    names = {name for names in chains(before).values() for name in names}
    changed = {
        a.name
        for a, b in zip(before.graph.initializer, after.graph.initializer, strict=True)
        if a != b
    }
    assert names <= changed <= set(trainable(before, "chains"))
    for model in (before, after):
        for tensor in model.graph.initializer:
            if tensor.name in changed:
                tensor.raw_data = b""
        said = (provenance.CHAINS, provenance.TRAINED, metadata.SEAL)
        kept = [p for p in model.metadata_props if p.key not in said]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
    assert before.SerializeToString() == after.SerializeToString()


def test_verify_passes_what_was_trained(tuned):
    ended = onnxcp("verify", MODEL, tuned[0])
    assert ended.exit_code == 0, ended.output
    assert "exact to rounding" in ended.stdout


def test_the_speed_stays(tuned):
    low, high = tuned[1]["speedup_over_candidate"]["ci"]
    assert low < 1.2
    assert high > 0.8


def test_samples_that_judge_do_not_train(tuned):
    counts = tuned[1]["samples"]
    with np.load(DATA) as data:
        total = len(next(iter(data.values())))
    assert sum(counts.values()) == total


def test_over_budget_nothing_is_written(chained, tmp_path):
    ended = finetune(chained, tmp_path / "o.onnx", "--max-drop", 0.0, "--learning-rate", 1e-9)
    assert ended.exit_code == 1
    assert "over budget" in ended.stdout
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_no_rewrite_of_the_reference_is_refused(tmp_path):
    ended = finetune(MODEL, tmp_path / "o.onnx")
    assert ended.exit_code == 2
    assert "was not made from" in ended.stderr


REFUSED = {
    "without data": (["--samples", 8], "too few"),
    "an unknown optimizer": (["--optimizer", "adam"], "adamw, sgd"),
    "no epochs": (["--epochs", 0], "--epochs 0"),
    "weights that are not there": (["--weights", "nothing*"], "names no weights"),
    "a loss that is no function": (["--loss", "nowhere:nothing"], "nowhere"),
    "labels without any": (["--label-weight", 1, "--train", "images.npz"], "label"),
}


@pytest.mark.parametrize("row", REFUSED.values(), ids=REFUSED)
def test_it_refuses(row, chained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, words = row
    with np.load(DATA) as data:
        images = {name: array for name, array in data.items() if name != "label"}
    np.savez("images.npz", **images)
    ended = finetune(chained, tmp_path / "o.onnx", *arguments)
    assert ended.exit_code == 2, ended.output
    (line,) = ended.stderr.splitlines()
    assert words in line
    assert not (tmp_path / "o.onnx").exists()


def test_a_device_that_is_not_there_is_refused(chained, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    ended = finetune(chained, tmp_path / "o.onnx", "--device", "cuda")
    assert ended.exit_code == 3
    assert "no CUDA device" in ended.stderr


def squared(outputs, labels):
    """A loss of one's own."""
    assert labels is not None
    return outputs[0].square().mean()


def test_everything_that_can_be_trained_for_at_once_and_verified(chained, tmp_path):
    weighed = ("--label-weight", 0.5, "--feature-weight", 0.1, "--stability", 1e-6)
    asked = (
        "--weights",
        "all",
        "--batch-norm",
        "trained",
        "--loss",
        "tests.training.test_finetune:squared",
    )
    out = tmp_path / "o.onnx"
    ended = finetune(chained, out, *weighed, *asked, "--optimizer", "sgd", "--json")
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout)["ok"]
    assert onnxcp("verify", MODEL, out).exit_code == 0


def test_a_weight_flipped_after_training_is_found(tuned, tmp_path):
    model = onnx.load(str(tuned[0]))
    trained = json.loads({p.key: p.value for p in model.metadata_props}[provenance.TRAINED])
    for name in (next(iter(trained)), next(iter(chains(model).values()))[0]):
        tensor = next(t for t in model.graph.initializer if t.name == name)
        before = tensor.raw_data
        tensor.raw_data = before[:-4] + np.float32(3).tobytes()
        path = tmp_path / "flipped.onnx"
        onnx.save(model, path)
        ended = onnxcp("verify", MODEL, path)
        assert ended.exit_code == 1, name
        tensor.raw_data = before


def test_a_killed_run_goes_on(chained, tmp_path):
    work, out = tmp_path / "work", tmp_path / "o.onnx"
    assert finetune(chained, out, "--work-dir", work).exit_code == 0
    again = finetune(chained, tmp_path / "p.onnx", "--work-dir", work, "--resume")
    assert again.exit_code == 0
    assert out.read_bytes() == (tmp_path / "p.onnx").read_bytes()
    other = finetune(chained, tmp_path / "q.onnx", "--work-dir", work)
    assert other.exit_code == 2
    assert "--resume" in other.stderr


def test_weights_go_by_name():
    model = onnx.load(str(MODEL))
    name = model.graph.initializer[0].name
    values = onnx.numpy_helper.to_array(model.graph.initializer[0])
    made = with_weights(model, {name: values + 1})
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(made.graph.initializer[0]), values + 1)
    assert list(made.graph.initializer)[1:] == list(model.graph.initializer)[1:]
    with pytest.raises(ValueError, match="of shape"):
        with_weights(model, {name: values[..., None]})


def test_sensitivity_is_taken_of_sums_of_rank_one_terms_alone(chained, tmp_path):
    model = onnx.load(str(chained))
    sites = {names[0].split("/cp/")[0] for names in rank_one(model)}
    assert sites == set(chains(model)) - {"head/gemm"}
    dense = tmp_path / "tucker.onnx"
    made = onnxcp("optimize", MODEL, "-o", dense, "--form", "tucker2", "--rank", "*conv*=0.25c")
    assert made.exit_code == 0, made.output
    assert rank_one(onnx.load(str(dense))) == ()


def test_statistics_are_never_trained():
    with pytest.raises(UsageError, match="names no weights"):
        trainable(onnx.load(str(MODEL)), "chains")
    named = trainable(onnx.load(str(MODEL)), "all")
    assert not [name for name in named if "mean" in name or "var" in name]
