"""`onnxcp doctor`: what works is proven, what does not is told with what mends it."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from typer.testing import CliRunner

from onnxcp.cli import app
from onnxcp.report import WRITERS
from onnxcp.report import doctor as diagnosis
from onnxcp.runtime import diagnosis as doctor
from onnxcp.runtime import probe
from onnxcp.runtime.diagnosis import Installed, examine
from onnxcp.runtime.machine import Gpu, Nvidia
from onnxcp.runtime.packages import LIBRARIES, Library
from onnxcp.runtime.probe import Proof, answer, prove

pytest.importorskip("onnxruntime")
ROOT = pathlib.Path(__file__).parents[2]
CPU_ONLY = {"onnxruntime": "1.31.1"}
H100 = Nvidia((Gpu("NVIDIA H100", 80 * 2**30, "9.0"),), "580.1", (13, 0))
NO_GPU = Nvidia(problem="no NVIDIA GPU: the driver's library libcuda.so.1 is not there")
ALL_THERE = {library.name: "1.0" for library in LIBRARIES}


# --- one proof ------------------------------------------------------------------------------


def test_the_cpu_is_proven_by_a_result_that_is_numpys():
    found = prove("cpu", 60)
    assert found.problem is None
    assert found.difference < 1e-5
    assert found.seconds > 0


def child(monkeypatch, code):
    monkeypatch.setattr(probe, "CHILD", ("-c", code))


def dies(number):
    return f"import os; os.kill(os.getpid(), {int(number)})"


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGILL, signal.SIGABRT])
def test_a_crash_is_told_by_its_signal(number, monkeypatch):
    child(monkeypatch, dies(number))
    found = prove("cuda", 60).problem
    assert found.startswith(f"its process ended with {number.name}; check CUDA and cuDNN: pip ")


def test_the_last_words_of_a_process_that_ends_are_told(monkeypatch):
    child(monkeypatch, "import sys; sys.exit('one\\nterminate called')")
    found = prove("cpu", 60).problem
    assert found.startswith("its process ended with exit code 1: terminate called; check ")


def test_a_hang_is_ended_and_told(monkeypatch, tmp_path):
    child(monkeypatch, "import time; time.sleep(600)")
    assert prove("cpu", 0.3).problem.startswith("no answer within 0.3 s; ")


def test_what_a_library_prints_spoils_no_answer(monkeypatch):
    code = (
        "import sys; print('hello'); from onnxcp.runtime.probe import _main; _main(*sys.argv[1:])"
    )
    child(monkeypatch, code)
    assert prove("cpu", 60).problem is None


def test_a_proof_imports_what_this_process_does_and_not_what_lies_around(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert prove("cpu", 60).problem is None


RESULTS = {"zeros": np.zeros((1, 16, 12, 12)), "NaN": np.full((1, 16, 12, 12), np.nan)}


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_a_wrong_result_is_no_success(result, monkeypatch):
    monkeypatch.setattr(probe, "open_runner", lambda model, target: lambda feeds: [result])
    found = answer("cpu")
    assert found.problem.startswith("its result is wrong: ")
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_what_goes_wrong_otherwise_is_told_too(monkeypatch):
    def broken(model, target):
        raise ImportError("libprotobuf is another one")

    monkeypatch.setattr(probe, "open_runner", broken)
    words = "ImportError: libprotobuf is another one; check"
    assert answer("cpu").problem.startswith(words)


# --- what has to work -----------------------------------------------------------------------


@pytest.fixture
def here(monkeypatch):
    """An installation made up: its builds, what they offer, what works, and the GPU."""

    def put(builds=CPU_ONLY, offers=("CPU",), works=("cpu",), gpu=NO_GPU, cuda=None):
        ort_names = tuple(f"{name}ExecutionProvider" for name in offers)
        monkeypatch.setattr(doctor, "_installed", lambda: Installed("1", builds, cuda, None))
        monkeypatch.setattr(doctor, "available", lambda: ort_names)
        monkeypatch.setattr(doctor, "nvidia", lambda: gpu)

        def made(name, limit):
            loaded = {"CUDA": "13.0", "cuDNN": None} if name in ("cuda", "tensorrt") else {}
            return Proof(name, None if name in works else "cause; remedy", 0.1, 1e-7, loaded)

        monkeypatch.setattr(doctor, "prove", made)

    return put


GPU_BUILD = {"onnxruntime-gpu": "1.31.1"}
GPU_OFFERS = ("Tensorrt", "CUDA", "CPU")


def test_the_main_provider_of_a_build_has_to_work(here):
    here(GPU_BUILD, GPU_OFFERS, ("cpu",), cuda="13.0")
    found = examine([], 1)
    assert found.exit_code == 3
    assert found.required == ("cpu", "cuda")
    assert [p.provider for p in found.failed] == ["cuda"]


def test_what_needs_more_than_a_wheel_may_be_missing(here):
    here(GPU_BUILD, GPU_OFFERS, ("cpu", "cuda"), H100, cuda="13.0")
    found = examine([], 1)
    assert found.exit_code == 0
    text = diagnosis.as_text(found, 80)
    assert "tensorrt      not usable: cause\n                -> remedy\n" in text
    assert text.endswith("Works: cpu, cuda.")


def test_what_is_asked_for_has_to_work_and_nothing_else(here):
    here(GPU_BUILD, GPU_OFFERS, ("cpu",), cuda="13.0")
    assert examine(["cpu"], 1).exit_code == 0
    assert examine(["tensorrt", "cpu"], 1).exit_code == 3
    assert [p.provider for p in examine(["cpu", "cpu"], 1).proofs] == ["cpu"]


BUILDS = {"openvino": "openvino", "directml": "directml", "qnn": "qnn", "gpu": "cuda"}


@pytest.mark.parametrize("build", BUILDS)
def test_a_build_is_made_for_the_provider_in_its_name(build, here):
    here({f"onnxruntime-{build}": "1"})
    assert examine([], 1).required == ("cpu", BUILDS[build])


def test_a_build_of_another_name_is_made_for_the_cpu(here):
    here({"onnxruntime-training": "1"})
    assert examine([], 1).required == ("cpu",)


# --- what is to be mended -------------------------------------------------------------------


def problems(*names):
    return "\n".join(examine(names, 1).problems)


BOTH = {**CPU_ONLY, **GPU_BUILD}


def test_two_builds_at_once_are_told_with_one_command_for_this_machine(here):
    here(BOTH, gpu=H100)
    both = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install"
    assert f"keep one: {both} 'onnxcp[gpu]'\n" in problems()
    here(BOTH)
    assert f"keep one: {both} 'onnxcp[cpu]'; for NVIDIA GPUs 'onnxcp[gpu]'" in problems()
    here({"onnxruntime": "1", "onnxruntime-openvino": "1"}, gpu=H100)
    assert "pip install onnxruntime-openvino" in problems()


def test_a_gpu_that_the_build_was_not_made_for_is_told_and_no_failure(here):
    here(gpu=H100)
    assert examine([], 1).exit_code == 0
    assert problems().startswith("NVIDIA H100 is present, but onnxruntime cannot use it; ")
    assert "pip uninstall -y onnxruntime && pip install 'onnxcp[gpu]'" in problems()


def test_a_missing_cudnn_is_told_with_what_brings_it(here):
    here(GPU_BUILD, GPU_OFFERS, cuda="13.0", gpu=H100)
    told = problems("cuda")
    assert told.startswith("cuda: cause; remedy\ncuDNN is not found; ")
    assert told.endswith("pip install 'onnxruntime-gpu[cuda,cudnn]'")
    assert "cuDNN" not in problems("cpu")


def test_libraries_of_some_commands_that_are_missing_are_told_in_one_command(here, monkeypatch):
    here()
    absent = {"scipy", "tensorly", "torch"}
    kept = property(lambda self: None if self.name in absent else "1.0")
    monkeypatch.setattr(Library, "version", kept)
    assert problems() == (
        "not installed: scipy (fits), tensorly (fits); to have all commands: pip install onnxcp"
    )
    text = diagnosis.as_text(examine([], 1), 80)
    assert "torch         missing, for fine-tuning" in text
    assert "-> pip install 'onnxcp[finetune]'" in text


def test_the_table_of_libraries_is_what_the_package_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = {"": project["dependencies"], **{k: extras[k] for k in extras if k != "dev"}}
    pairs = {(extra, text.partition(">=")[0]) for extra, names in asked.items() for text in names}
    builds = {("cpu", "onnxruntime"), ("gpu", "onnxruntime-gpu[cuda,cudnn]")}
    assert pairs - builds == {(library.extra, library.name) for library in LIBRARIES}


# --- what is shown --------------------------------------------------------------------------


def everything_wrong(here):
    here(BOTH, GPU_OFFERS, (), H100, "13.0")
    found = examine([], 1)
    machine = dataclasses.replace(found.machine, platform="Linux-6.18", cpu="AMD EPYC " * 12)
    return dataclasses.replace(found, machine=machine, libraries=dict.fromkeys(ALL_THERE))


def test_text_fits_its_columns_and_commands_stay_in_one_line(here):
    text = diagnosis.as_text(everything_wrong(here), 80)
    assert max(map(len, text.splitlines())) <= 80
    for command in (
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxcp[gpu]'",
        "pip install 'onnxruntime-gpu[cuda,cudnn]'",
        "pip install 'onnxcp[search]'",
        "pip install onnxcp",
    ):
        assert any(command in line for line in text.splitlines()), text


def test_the_last_line_is_the_verdict(here):
    text = diagnosis.as_text(everything_wrong(here), 80)
    assert text.endswith("\n\nDoes not work: cpu, cuda.")


def test_json_says_the_same(here):
    found = everything_wrong(here)
    document = json.loads(WRITERS[".json"](diagnosis.page(found)))
    assert document["exit_code"] == 3
    assert document["problems"] == list(found.problems)
    assert document["nvidia"]["gpus"][0]["capability"] == "9.0"
    assert document["onnxruntime"]["builds"] == BOTH
    row = next(p for p in document["providers"] if p["provider"] == "tensorrt")
    assert (row["works"], row["required"], row["problem"]) == (False, False, "cause; remedy")
    assert document["libraries"]["optuna"]["install"] == "pip install 'onnxcp[search]'"


# --- the command ----------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(app, ["doctor", *arguments], env={"COLUMNS": "80"})


def test_the_command_proves_the_cpu_of_this_machine():
    ended = run("--provider", "cpu")
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert ended.stdout.endswith("\nWorks: cpu.\n")
    assert "  cpu           works: " in ended.stdout


def test_its_json_is_strict():
    ended = run("--provider", "cpu", "--json")

    def refuse(word):
        raise AssertionError(word)

    document = json.loads(ended.stdout, parse_constant=refuse)
    assert document["providers"][0]["works"]


def test_an_unknown_provider_is_wrong_use():
    ended = run("--provider", "tpu")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: --provider tpu: unknown; choose one of cpu, cuda")


def test_without_a_runtime_it_says_what_installs_one():
    code = "import sys; sys.modules['onnxruntime'] = None; from onnxcp.cli import main; main()"
    command = [sys.executable, "-c", code, "doctor"]
    for arguments in ([], ["--provider", "cuda"]):
        ended = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=ROOT)
        assert (ended.returncode, ended.stderr) == (3, "")
        assert "pip install 'onnxcp[cpu]' for CPUs, or" in ended.stdout
        assert ended.stdout.endswith("No model can be run without ONNX Runtime.\n")
