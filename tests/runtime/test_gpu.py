"""On a machine with an NVIDIA GPU and onnxruntime-gpu: `pytest -m gpu`."""

import json
import pathlib

import numpy as np
import pytest
from bound import bound_outputs
from typer.testing import CliRunner

from onnxcp.cli import app
from onnxcp.runtime.machine import nvidia
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner

pytestmark = pytest.mark.gpu

MODEL = pathlib.Path(__file__).parents[2] / "models/digits.onnx"
DATA = MODEL.with_suffix(".npz")
IMAGES = {"input": np.random.default_rng(0).random((32, 1, 8, 8), np.float32)}
ROUNDING = 1e-3  # of float32 without TF32
GRAPH = {"enable_cuda_graph": "1"}


def cuda(**options):
    """In full precision, so that outputs can be compared."""
    return Target.named("cuda", options=options).exact


def apart(some, others):
    """The largest relative L2 difference of two lists of outputs."""
    pairs = zip(some, others, strict=True)
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs)


def onnxcp(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_the_driver_tells_its_gpus():
    assert nvidia().problem is None
    assert all(gpu.bytes > 2**30 and gpu.name for gpu in nvidia().gpus)


def test_a_session_on_the_gpu_gives_what_the_cpu_gives():
    found = open_runner(MODEL, cuda())(IMAGES)
    assert apart(found, open_runner(MODEL, Target.named("cpu"))(IMAGES)) < ROUNDING


@pytest.mark.parametrize("options", [{}, GRAPH], ids=["plain", "graph"])
def test_timed_runs_in_the_gpus_memory_give_what_plain_runs_give(options, monkeypatch):
    runner = open_runner(MODEL, cuda(**options))
    found = bound_outputs(monkeypatch, runner, "cuda", IMAGES, runs=5)
    assert apart(found, runner(IMAGES)) < ROUNDING


@pytest.mark.parametrize("options", [{}, GRAPH], ids=["plain", "graph"])
def test_a_timed_run_is_repeated(options):
    run = open_runner(MODEL, cuda(**options)).bound(IMAGES)
    assert [run() for _ in range(5)] == [None] * 5


def test_other_shapes_run_after_a_graph_was_recorded():
    runner = open_runner(MODEL, cuda(**GRAPH))
    runner.bound(IMAGES)()
    small = {name: array[:3] for name, array in IMAGES.items()}
    assert len(runner(small)[0]) == 3


def test_a_forced_rank_is_written_and_proven_on_the_gpu(tmp_path):
    out, report = tmp_path / "out.onnx", tmp_path / "run.json"
    forced = ("--rank", "block/conv1=0.5c", "--form", "cp3", "--provider", "cuda")
    ended = onnxcp("optimize", MODEL, "-o", out, "--report", report, *forced)
    assert ended.exit_code == 0, ended.output
    found = json.loads(report.read_text())
    assert found["provider"] == "cuda"
    assert found["environment"]["gpu"] == nvidia().gpus[0].name
    open_runner(out, cuda())(IMAGES)


def test_optimize_ends_with_a_faster_model_or_a_clear_no(tmp_path):
    out = tmp_path / "out.onnx"
    limits = ("--data", DATA, "--max-drop", "0.01")
    ended = onnxcp("optimize", MODEL, "-o", out, *limits, "--provider", "cuda")
    assert ended.exit_code == (0 if out.is_file() else 1), ended.output


def test_a_model_on_the_gpu_is_verified_against_the_cpu():
    where = ("--provider", "cuda", "--reference-provider", "cpu")
    ended = onnxcp("verify", MODEL, MODEL, "--data", DATA, "--max-drop", "0.005", *where)
    assert ended.exit_code == 0, ended.output


def test_doctor_proves_the_gpu():
    ended = onnxcp("doctor", "--provider", "cuda", "--json")
    assert ended.exit_code == 0, ended.output
    document = json.loads(ended.stdout)
    (row,) = document["providers"]
    assert row["works"]
    assert row["difference"] < ROUNDING
    assert all(row["loaded"].values())
