"""`benchmark --precision`: what is timed in which numbers, and what is refused with which words."""

import json
from pathlib import Path

import numpy as np
import pytest
from int8_models import NODES, TENSORS, int8, samples
from typer.testing import CliRunner
from written import model, weight

from onnxcp.cli import app
from onnxcp.errors import UsageError
from onnxcp.graph import io
from onnxcp.quantization.precision import refuse_without_kernels
from onnxcp.quantization.scheme import Scheme
from onnxcp.runtime import providers
from onnxcp.runtime.provider_table import PROVIDERS
from onnxcp.runtime.providers import Target

SHORT = ("--threads", "1", "--duration", "0", "--iterations", "8", "--warmup", "0")
X = np.random.default_rng(0).standard_normal((64, 4, 9, 8)).astype(np.float32)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model(Path("m.onnx"), NODES, TENSORS)
    np.savez("d.npz", x=X)


def benchmark(*arguments, short=SHORT):
    return CliRunner().invoke(app, ["benchmark", *map(str, arguments), *short])


def document(*arguments):
    ended = benchmark(*arguments, "--json")
    assert (ended.exit_code, ended.stderr) == (0, "")
    return json.loads(ended.stdout)


# --- what is timed


def test_one_model_is_timed_beside_itself_in_int8():
    found = document("m.onnx", "--precision", "int8", "--calibration", "d.npz")
    assert found["models"] == ["m.onnx", "m.onnx (int8)"]
    assert (found["precision"], found["precisions"]) == ("int8", ["float32", "int8"])
    assert found["runs"][0]["speedup"]["ratio"] > 0
    assert sorted(p.name for p in Path().iterdir()) == ["d.npz", "m.onnx"]


def test_two_models_are_both_converted():
    model(Path("n.onnx"), "y = Conv <pads = [1, 1, 1, 1]> (x, w)", {"w": weight(4, 4, 3, 3)})
    found = document("m.onnx", "n.onnx", "--precision", "int8", "--data", "d.npz")
    assert found["models"] == ["m.onnx (int8)", "n.onnx (int8)"]
    assert found["precisions"] == ["int8", "int8"]


def test_as_they_are_models_say_what_they_compute_in():
    io.save(int8(io.load(Path("m.onnx")).proto), Path("q.onnx"))
    found = document("m.onnx", "q.onnx")
    assert (found["precision"], found["precisions"]) == ("float32", ["float32", "int8"])


def test_few_samples_of_data_may_all_calibrate():
    np.savez("d.npz", x=X[:20])
    assert document("m.onnx", "--precision", "int8", "--data", "d.npz")["precision"] == "int8"


def test_a_sweep_converts_once_for_all_batch_sizes():
    found = document("m.onnx", "--precision", "int8", "--data", "d.npz", "--batch", "1,4")
    assert [run["batch"] for run in found["runs"]] == [1, 4]


def test_one_model_in_another_precision_can_be_guarded():
    limit = ("--fail-if-slower", "900%")
    more = ("--precision", "int8", "--data", "d.npz", *limit)
    assert benchmark("m.onnx", *more).exit_code == 0


def test_a_baseline_of_another_precision_is_not_compared():
    whole = ("m.onnx", "m.onnx", "--data", "d.npz")
    assert benchmark(*whole, "--report", "base.json").exit_code == 0
    ended = benchmark(*whole, "--precision", "int8", "--baseline", "base.json")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "precision float32, here int8" in ended.stderr


def test_float16_is_timed_where_the_provider_computes_in_it(monkeypatch):
    free = {**PROVIDERS, "cpu": providers.replace(PROVIDERS["cpu"], lacks={})}
    monkeypatch.setattr(providers, "PROVIDERS", free)
    found = document("m.onnx", "--precision", "float16")
    assert found["precisions"] == ["float32", "float16"]


def test_an_old_opset_is_raised_with_consent():
    model(Path("m.onnx"), NODES, TENSORS, opset=10)
    more = ("--precision", "int8", "--data", "d.npz", "--raise-opset")
    assert document("m.onnx", *more)["precisions"] == ["float32", "int8"]


# --- what is refused


def refused(*arguments, code=2):
    ended = benchmark(*arguments)
    assert (ended.exit_code, ended.stdout) == (code, ""), ended.output
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert not Path("r.json").exists()
    return line


def half_of_it():
    model(Path("m.onnx"), NODES, TENSORS, dtype=np.float16)
    np.savez("d.npz", x=X.astype(np.float16))


def quantized(*floats):
    proto = io.load(Path("m.onnx")).proto
    io.save(int8(proto, Scheme(floats=floats), samples()), Path("m.onnx"))


def saved(values):
    np.savez("d.npz", x=values)


def dead_inside():
    """The input tells enough, but the model makes NaN of it."""
    model(Path("m.onnx"), f"s = Sqrt (x) {NODES.replace('(x, w1)', '(s, w1)')}", TENSORS)


WITH_NAN = X.copy()
WITH_NAN[:, 0, 0, 0] = np.nan
DATA = ("--calibration", "d.npz")
ROWS = {
    "no samples": (lambda: None, (), "no samples to take the ranges", "give --calibration"),
    "too few": (lambda: saved(X[:15]), DATA, "15 calibration samples in d.npz", "give 16 or more"),
    "constant": (lambda: saved(np.zeros_like(X)), DATA, "'x' is 0 everywhere", "real inputs"),
    "one number": (lambda: saved(np.full_like(X, 3)), DATA, "'x' is 3 everywhere", "d.npz"),
    "NaN in an activation": (dead_inside, DATA, "is NaN or infinite", "preprocessed"),
    "quantized": (quantized, DATA, "m.onnx: quantized already (", "give the float model"),
    "in part": (lambda: quantized("first"), DATA, "m.onnx: quantized in part (", "1 Conv"),
    "float16": (half_of_it, DATA, "m.onnx: a float16 model", "export it in float32"),
    "an old opset": (
        lambda: model(Path("m.onnx"), NODES, TENSORS, opset=10),
        DATA,
        "m.onnx: opset 10 has no quantization by channel",
        "--raise-opset",
    ),
    "nothing for int8": (
        lambda: model(Path("m.onnx"), "y = Relu (x)", {}),
        DATA,
        "no Conv, Gemm or MatMul",
    ),
    "samples that do not fit": (lambda: saved(X[:, :3]), DATA, "3x9x8 do not fit the input x"),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_int8_is_refused_for(row):
    make, arguments, *words = row
    make()
    line = refused("m.onnx", "--precision", "int8", "--report", "r.json", *arguments)
    assert not [word for word in words if word not in line], line


def test_nan_among_the_samples_is_refused():
    saved(WITH_NAN)
    line = refused("m.onnx", "--precision", "int8", *DATA)
    assert "NaN" in line


def test_a_precision_that_there_is_not_is_refused():
    line = refused("m.onnx", "--precision", "int4")
    assert "--precision int4: unknown; choose one of float32, float16, int8" in line


def test_float16_on_the_cpu_is_refused_with_what_to_try():
    line = refused("m.onnx", "--precision", "float16")
    assert "provider cpu: it still computes in float32" in line
    assert "--precision int8" in line


@pytest.mark.parametrize("name", ["cuda", "tensorrt", "coreml"])
def test_int8_where_a_provider_has_no_kernels_is_refused_before_anything_is_loaded(name):
    line = refused("none.onnx", "--precision", "int8", "--provider", name)
    assert f"--precision int8: provider {name}: " in line
    assert "try --precision float16" in line


def test_of_what_no_row_speaks_the_runtime_decides():
    for name in ("openvino", "xnnpack", "directml", "qnn"):
        refuse_without_kernels("int8", Target.named(name))
    refuse_without_kernels("float32", Target.named("cpu"))
    with pytest.raises(UsageError, match="provider cuda"):
        refuse_without_kernels("int8", Target.named("cuda,cpu"))


def test_samples_that_calibrate_and_are_data_too_are_refused():
    line = refused("m.onnx", "--precision", "int8", "--data", "d.npz", *DATA)
    assert "share samples" in line
