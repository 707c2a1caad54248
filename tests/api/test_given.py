"""Models and samples as a caller has them: whatever they are, a verb makes the same of them."""

import contextlib
import io
import os
import pathlib
import signal
import tempfile
import warnings

import numpy as np
import onnx
import pytest
from digits import DATA, MODEL
from onnxruntime.quantization import CalibrationDataReader
from tiny import chain_model

import onnxcp
from onnxcp.api.models import model_file
from onnxcp.api.samples import as_array, sample_specs
from onnxcp.chain import Stage
from onnxcp.data import preprocess, sources
from onnxcp.errors import DataError, ModelError, UsageError
from onnxcp.graph import io as graph_io

STORED = dict(np.load(DATA))
IMAGES, LABELS = STORED["input"][:96], STORED["label"][:96]
RUN = {"form": "svd", "threads": 1, "jobs": 1, "iterations": 8}
SEARCHED = {**RUN, "include": "block/*", "max_drop": 0.1}
FORCED = {**RUN, "rank": {"block/conv1": 8}}


def batches(size):
    for start in range(0, len(IMAGES), size):
        yield IMAGES[start : start + size], LABELS[start : start + size]


class Reader(CalibrationDataReader):
    def __init__(self):
        self.batches = batches(32)

    def get_next(self):
        images, _ = next(self.batches, (None, None))
        return None if images is None else {"input": images}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The samples as a file."""
    file = tmp_path_factory.mktemp("given") / "some.npz"
    np.savez(file, input=IMAGES, label=LABELS)
    return file


@pytest.fixture(scope="module")
def expected(path, quiet):
    """What comes of the model and the samples as files."""
    found = outcome(onnxcp.optimize(MODEL, data=path, **SEARCHED))
    assert set(found[0].choices) == {"block/conv1", "block/conv2"}
    return found


def outcome(result):
    """The plan, the accuracy with its interval, and the weights that a run came to."""
    nodes = {name for n in result.model.graph.node for name in n.input if "/cp/" in n.name}
    stored = {t.name: t.raw_data for t in result.model.graph.initializer if t.name in nodes}
    found = result.accuracy
    return result.plan, (found.before, found.after, found.drop_ci, found.samples), stored


def in_surgeon(proto):
    graphsurgeon = pytest.importorskip("onnx_graphsurgeon")
    return graphsurgeon.import_onnx(proto)


SAMPLES = {
    "a text": lambda path: str(path),
    "a list of parts": lambda path: [f"{path}[:40]", f"{path}[40:]"],
    "arrays by name": lambda path: {"input": IMAGES, "label": LABELS},
    "lists of numbers": lambda path: {"input": IMAGES.tolist(), "label": LABELS.tolist()},
    "a generator of batches": lambda path: batches(32),
    "batches with a rest": lambda path: list(batches(36)),
    "mappings with labels": lambda path: [({"input": i}, n) for i, n in batches(32)],
    "mappings with a label in them": lambda path: [{"input": i, "label": n} for i, n in batches(8)],
    "samples one at a time": lambda path: list(zip(IMAGES, LABELS, strict=True)),
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_samples_of_every_kind_are_those_of_the_file(kind, path, tmp_path):
    given = sample_specs(SAMPLES[kind](path), "data", MODEL, tmp_path)
    specs, plain = graph_io.inputs_of(MODEL), preprocess.named("none")
    read = sources.join([sources.load(spec, specs, plain) for spec in given])
    wanted = sources.load(str(path), specs, plain)
    assert np.array_equal(read.labels, wanted.labels)
    assert np.array_equal(read.read(0, 96)["input"], wanted.read(0, 96)["input"])


@pytest.mark.parametrize("kind", ["arrays by name", "a generator of batches"])
def test_samples_in_memory_give_the_plan_of_the_file(kind, path, expected, quiet):
    assert outcome(onnxcp.optimize(MODEL, data=SAMPLES[kind](path), **SEARCHED)) == expected


MODELS = {
    "a ModelProto": onnx.load,
    "a graphsurgeon Graph": lambda path: in_surgeon(onnx.load(path)),
}


@pytest.mark.parametrize("kind", MODELS)
def test_models_in_memory_give_the_plan_of_the_file(kind, path, expected, quiet):
    assert outcome(onnxcp.optimize(MODELS[kind](MODEL), data=path, **SEARCHED)) == expected


def test_a_loader_of_torch_gives_the_samples_of_the_file(tmp_path):
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    samples = TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(LABELS))
    loader = DataLoader(samples, batch_size=36)
    (spec,) = sample_specs(loader, "data", MODEL, tmp_path)
    found = np.load(spec)
    assert np.array_equal(found["input"], IMAGES)
    assert np.array_equal(found["label"], LABELS)


def test_a_calibration_reader_gives_its_samples_without_labels(tmp_path):
    (spec,) = sample_specs(Reader(), "calibration", MODEL, tmp_path)
    found = np.load(spec)
    assert found.files == ["input"]
    assert np.array_equal(found["input"], IMAGES)


def test_a_calibration_reader_calibrates(path, quiet):
    settings = onnxcp.optimize(MODEL, data=path, calibration=Reader(), **FORCED).report.settings
    assert settings["calibration"] == ["calibration"]
    assert settings["calibration_samples"] == len(IMAGES)


def test_a_model_with_external_data_in_memory_gives_what_its_file_gives(tmp_path, path, quiet):
    file = tmp_path / "outside.onnx"
    onnx.save(onnx.load(MODEL), file, save_as_external_data=True, size_threshold=0)
    one, two = (onnxcp.optimize(m, data=path, **FORCED) for m in (file, onnx.load(file)))
    assert outcome(one) == outcome(two)


def test_a_model_too_large_for_one_message_lies_beside_its_file(tmp_path, monkeypatch):
    model = onnx.load(MODEL)
    before = model.SerializeToString()
    monkeypatch.setattr(graph_io, "LARGEST_MESSAGE", 1000)
    file = model_file(model, "model", tmp_path)
    assert (tmp_path / "model.onnx.data").stat().st_size > 100_000
    assert onnx.load(file).graph.node == model.graph.node
    assert model.SerializeToString() == before


def test_verify_takes_models_and_samples_in_memory(path):
    model = onnx.load(MODEL)
    found = onnxcp.verify(model, MODEL, data={"input": IMAGES, "label": LABELS}, max_drop=0.01)
    assert found.ok
    assert found.accuracy.drop == 0
    assert found.accuracy.data == "data"
    assert (found.reference, found.candidate) == ("reference", str(MODEL))


def test_one_object_cannot_judge_and_calibrate():
    arrays = {"input": IMAGES}
    with pytest.raises(UsageError, match="calibration: is the object that data is"):
        onnxcp.optimize(MODEL, data=arrays, calibration=arrays)


BAD = {
    "a number": (3, UsageError, "data: int holds no samples"),
    "no batches": ([iter(())], DataError, "data: gives list_iterator|data: gives tuple_iterator"),
    "an iterator that is used up": (iter(()), DataError, "data: gives no samples"),
    "no arrays": ({}, DataError, "data: holds no arrays"),
    "texts": ({"input": np.array(["a", "b"])}, DataError, r"data\['input'\]: of <U1"),
    "objects": ({"input": [object()]}, DataError, r"data\['input'\]: of object"),
    "ragged lists": ({"input": [[1], [1, 2]]}, DataError, r"data\['input'\]: not an array"),
    "another name": ([({"image": IMAGES}, LABELS)], DataError, r"\Adata: feeds .*image"),
    "another shape": ({"input": IMAGES[:, :, :4]}, DataError, "do not fit the input"),
    "labels of another number": (
        [(IMAGES, LABELS[:5])],
        DataError,
        r"\Adata: .*number of",
    ),
    "labels for some": (
        [(IMAGES[:8], LABELS[:8]), (IMAGES[8:], None)],
        DataError,
        r"\Adata: .*some .*labels",
    ),
    "labels of another count": (
        {"input": IMAGES, "label": LABELS[:5]},
        DataError,
        r"\Adata: .*: input 96, label 5",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_samples_that_are_none_are_refused_by_the_keyword(kind):
    given, error, said = BAD[kind]
    with pytest.raises(error, match=said):
        onnxcp.optimize(MODEL, data=given, **FORCED)


def test_an_iterable_that_fails_is_quoted():
    def failing():
        yield IMAGES[:2], LABELS[:2]
        raise RuntimeError("the disk is gone")

    with pytest.raises(DataError, match="data: failed: RuntimeError: the disk is gone"):
        onnxcp.optimize(MODEL, data=failing(), **FORCED)


def test_no_more_batches_are_read_than_the_first_samples_need(tmp_path):
    taken = []

    def counted():
        for number, batch in enumerate(batches(8)):
            taken.append(number)
            yield batch

    (spec,) = sample_specs(counted(), "data", MODEL, tmp_path, 20)
    assert taken == [0, 1, 2]
    assert len(np.load(spec)["input"]) == 24


def test_an_array_may_have_the_name_that_numpy_keeps_for_its_file(tmp_path):
    (spec,) = sample_specs({"file": IMAGES, "a/b": LABELS}, "data", MODEL, tmp_path)
    assert set(np.load(spec)) == {"file", "a/b"}


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float64, np.int64, bool])
def test_arrays_keep_their_type_on_the_way(dtype, tmp_path):
    (spec,) = sample_specs({"input": np.ones((2, 3), dtype)}, "data", MODEL, tmp_path)
    assert np.load(spec)["input"].dtype == dtype


def test_a_tensor_that_needs_a_gradient_is_an_array():
    torch = pytest.importorskip("torch")
    assert as_array(torch.ones(2, requires_grad=True), "weight").tolist() == [1, 1]


def test_a_model_that_is_no_file_is_refused_by_its_name(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        onnxcp.inspect(tmp_path / "none.onnx")


def test_a_broken_model_in_memory_is_called_by_the_keyword():
    proto = onnx.load(MODEL)
    proto.graph.node[0].op_type = "Konv"
    with pytest.raises(ModelError, match=r"\Acandidate: "):
        onnxcp.verify(MODEL, proto)


@contextlib.contextmanager
def unchanged(folder):
    """What a library must leave as it was; of Python's own random numbers the checks of array
    types take some."""

    def state():
        return {
            "cwd": pathlib.Path.cwd(),
            "environment": dict(os.environ),
            "handlers": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
            "warnings": list(warnings.filters),
            "random": np.random.get_state()[1].tolist(),  # noqa: NPY002
            "files": sorted(p.name for p in folder.rglob("*")),
            "temporary": sorted(pathlib.Path(tempfile.gettempdir()).iterdir()),
        }

    before = state()
    yield
    assert state() == before


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A current folder and a folder of temporary files of a test's own."""
    monkeypatch.chdir(tmp_path)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return tmp_path


def one_layer():
    stage = Stage("only", np.ones((16, 16, 3, 3), np.float32))
    return onnx.load_from_string(chain_model((stage,), (1, 16, 8, 8), np.dtype(np.float32)))


def calls():
    model, data = onnx.load(MODEL), {"input": IMAGES, "label": LABELS}
    return {
        "optimize": lambda: onnxcp.optimize(model, data=data, **FORCED),
        "inspect": lambda: onnxcp.inspect(model),
        "verify": lambda: onnxcp.verify(model, model, data=data),
        "benchmark": lambda: onnxcp.benchmark(model, iterations=8, duration=0, threads=1),
        "profile": lambda: onnxcp.profile(one_layer(), form="svd", threads=1),
        "decompose": lambda: onnxcp.decompose(np.eye(8), "svd", 2),
    }


@pytest.mark.parametrize("name", calls())
def test_a_call_prints_nothing_and_leaves_everything_as_it_was(name, alone, quiet, capfd):
    with unchanged(alone):
        result = calls()[name]()
    assert capfd.readouterr() == ("", "")
    with contextlib.redirect_stdout(io.StringIO()):
        repr(result)


def test_a_call_that_fails_leaves_nothing_behind(alone):
    with unchanged(alone), pytest.raises(UsageError):
        onnxcp.optimize(onnx.load(MODEL), data={"input": IMAGES, "label": LABELS}, max_drop=0.7)
