"""Other builds of ONNX Runtime, installed by pip into environments of their own.

onnxruntime-gpu on a machine without a GPU: every command ends with the cause, and none of
them gives the CPU's figures under the GPU's name. onnxruntime-openvino: a provider other than
the CPU that runs anywhere.
"""

import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import onnx
import pytest

from onnxcp.runtime.machine import nvidia

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIMES_OWN = ("flatbuffers", "packaging", "protobuf")  # what every build asks for
OPENVINO = "1.24.1"  # 1.24 is the first that tells where nodes run
NO_NETWORK = "No matching distribution|ConnectionError|Max retries|Temporary failure|timed out"


def run(folder, *command, **more):
    own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run(
        command, cwd=folder, env=own | more, capture_output=True, text=True, timeout=300
    )


def pip(python, *wanted):
    """Skips the test if an index cannot be reached; fails if pip fails otherwise."""
    command = (str(python), "-m", "pip", "install", "--quiet", *wanted)
    ended = run(ROOT, *command)
    if ended.returncode and re.search(NO_NETWORK, ended.stderr):
        pytest.skip(f"pip cannot get {wanted[-1]}: {ended.stderr.strip().splitlines()[-1]}")
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """An environment with all that onnxcp asks for but a runtime; builds take turns in it."""
    folder = tmp_path_factory.mktemp("base")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "onnxcp", source / "onnxcp")
    assert run(folder, sys.executable, "-m", "venv", "venv").returncode == 0
    python = folder / "venv/bin/python"
    pip(python, "--no-deps", RUNTIMES_OWN[0])  # under constraints no network is a conflict
    constraints = ("-c", str(ROOT / "constraints.txt"))
    pip(python, *constraints, *RUNTIMES_OWN, *PROJECT["dependencies"])
    pip(python, "--no-deps", str(source))
    return python


def with_build(python, wanted):
    """The environment with this build alone."""
    names = ("onnxruntime-gpu", "onnxruntime-openvino")
    run(ROOT, str(python), "-m", "pip", "uninstall", "--quiet", "-y", *names)
    pip(python, "--no-deps", wanted)
    return python.parent / "onnxcp"


@pytest.fixture
def model(tmp_path):
    shutil.copy(ROOT / "models/digits.onnx", tmp_path)
    return tmp_path / "digits.onnx"


@pytest.fixture(scope="module")
def gpu_build(base):
    if nvidia().gpus:
        pytest.skip("this machine has a GPU")
    return with_build(base, f"onnxruntime-gpu=={importlib.metadata.version('onnxruntime')}")


COMMANDS = {
    "optimize": ("optimize", "digits.onnx", "-o", "out.onnx", "--report", "run.json"),
    "benchmark": ("benchmark", "digits.onnx"),
    "verify": ("verify", "digits.onnx", "digits.onnx"),
    "profile": ("profile", "digits.onnx", "-o", "latency.json"),
    "inspect": ("inspect", "digits.onnx", "--profile"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_gpu_no_command_gives_figures_under_its_name(command, gpu_build, model):
    ended = run(model.parent, str(gpu_build), *COMMANDS[command], "--provider", "cuda")
    assert (ended.returncode, ended.stdout) == (3, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: provider cuda: ")
    assert "no NVIDIA GPU" in line
    assert "install the NVIDIA driver" in line
    assert list(model.parent.iterdir()) == [model]


def test_without_a_gpu_its_build_still_serves_the_cpu(gpu_build, model):
    ended = run(model.parent, str(gpu_build), *COMMANDS["benchmark"], "--duration", "0.1")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_doctor_names_the_driver_as_the_cause(gpu_build, tmp_path):
    ended = run(tmp_path, str(gpu_build), "doctor", COLUMNS="80")
    assert (ended.returncode, ended.stderr) == (3, "")
    assert ended.stdout.endswith("\nDoes not work: cuda.\n")
    words = " ".join(ended.stdout.split())
    assert "cuda FAILED, see below" in words
    assert "- cuda: CUDAExecutionProvider did not load: no NVIDIA GPU: the driver" in words
    assert "-> install the NVIDIA driver" in words
    assert "tensorrt not usable: no NVIDIA GPU" in words
    assert "cpu works" in words


def test_doctor_of_the_cpu_alone_is_content(gpu_build, tmp_path):
    asked = run(tmp_path, str(gpu_build), "doctor", "--provider", "cpu")
    assert asked.returncode == 0
    refused = run(tmp_path, str(gpu_build), "doctor", "--provider", "cuda")
    assert refused.returncode == 3


@pytest.fixture(scope="module")
def openvino_build(base):
    return with_build(base, f"onnxruntime-openvino=={OPENVINO}")


ON_OPENVINO = ("--provider", "openvino", "--threads", "1")


def test_benchmark_runs_on_openvino(openvino_build, model):
    command = (*COMMANDS["benchmark"], "--duration", "0.1", "--json", *ON_OPENVINO)
    ended = run(model.parent, str(openvino_build), *command)
    assert (ended.returncode, ended.stderr) == (0, "")
    options = json.loads(ended.stdout)["environment"]["provider_options"]
    assert options == {"num_of_threads": "1"}


def test_verify_runs_on_openvino(openvino_build, model):
    ended = run(model.parent, str(openvino_build), *COMMANDS["verify"], *ON_OPENVINO)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_forced_rank_is_written_and_proven_on_openvino(openvino_build, model):
    forced = ("--rank", "block/conv1=0.5c", "--form", "cp3", "--no-cache", "--iterations", "10")
    command = (*COMMANDS["optimize"], *forced, *ON_OPENVINO)
    ended = run(model.parent, str(openvino_build), *command)
    assert (ended.returncode, ended.stderr) == (0, "")
    report = json.loads((model.parent / "run.json").read_text())
    assert report["provider"] == "openvino"
    assert (model.parent / "out.onnx").is_file()


def test_doctor_proves_openvino(openvino_build, tmp_path):
    ended = run(tmp_path, str(openvino_build), "doctor", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    document = json.loads(ended.stdout)
    state = {row["provider"]: (row["works"], row["required"]) for row in document["providers"]}
    assert state == {"cpu": (True, True), "openvino": (True, True)}
    assert document["onnxruntime"]["builds"] == {"onnxruntime-openvino": OPENVINO}


def test_a_device_that_openvino_lacks_is_told_in_its_own_words(openvino_build, model):
    device = ("--provider-option", "device_type=GPU")
    ended = run(model.parent, str(openvino_build), *COMMANDS["benchmark"], *ON_OPENVINO, *device)
    assert (ended.returncode, ended.stdout) == (3, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: provider openvino: ")
    assert "Device GPU is not available" in line


def test_an_option_that_openvino_does_not_have_is_wrong_use(openvino_build, model):
    option = ("--provider-option", "nonsense=1")
    ended = run(model.parent, str(openvino_build), *COMMANDS["benchmark"], *ON_OPENVINO, *option)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "nonsense" in ended.stderr


def test_nodes_that_openvino_does_not_take_are_refused_unless_the_cpu_may(openvino_build, tmp_path):
    made = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1,8,8,8] x) => (float[1,8] y) {'
        "  c = Conv <pads = [1, 1, 1, 1]> (x, w)  r = Relu (c)  [det] y = Det (r) }"
    )
    kernel = np.random.default_rng(0).standard_normal((8, 8, 3, 3)).astype(np.float32)
    made.graph.initializer.append(onnx.numpy_helper.from_array(kernel, "w"))
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    command = (str(openvino_build), "benchmark", "m.onnx", "--duration", "0.1", "--provider")
    alone = run(tmp_path, *command, "openvino")
    assert (alone.returncode, alone.stdout) == (3, "")
    assert "1 of 3 nodes of m.onnx would run elsewhere (1 Det; first det)" in alone.stderr
    assert "use --provider openvino,cpu" in alone.stderr
    helped = run(tmp_path, *command, "openvino,cpu")
    assert (helped.returncode, helped.stderr) == (0, "")
