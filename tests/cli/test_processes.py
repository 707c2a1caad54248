"""What only a real process shows: signals, workers, a closed pipe, a full disk, a missing runtime.

The commands run in a session of their own, as in a terminal: a signal to the group reaches
the workers too.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from processes import INTERRUPTED, MISSING, WRONG_USE, wait_for

import onnxcp
from onnxcp.artifacts.reservation import Reads, reserve
from onnxcp.storage import temporary

MODEL = Path(__file__).parents[2] / "models/digits.onnx"
HERE = {**os.environ, "PYTHONPATH": str(Path(onnxcp.__file__).parents[1]), "OMP_NUM_THREADS": "2"}
WITHOUT_RUNTIME = (
    "import sys; sys.modules['onnxruntime'] = None; from onnxcp.cli import main; main()"
)
ONE = ("--threads", 1)  # told by its processor time, however busy this machine is
PHASES = ("evaluate samples", "time candidates", "fit drafts")

posix = pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are POSIX")
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Three convolutions of 160 to 160 channels: many seconds of fits."""
    text = "".join(f"[conv{i}] x{i + 1} = Conv <pads = [1,1,1,1]> (x{i}, w{i})" for i in range(3))
    made = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        f"g (float[N,160,7,7] x0) => (float[N,160,7,7] x3) {{ {text} }}"
    )
    rng = np.random.default_rng(0)
    for i in range(3):
        weight = rng.standard_normal((160, 160, 3, 3)).astype(np.float32) / 38
        made.graph.initializer.append(onnx.numpy_helper.from_array(weight, f"w{i}"))
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    onnx.save(made, path)
    return path


@contextlib.contextmanager
def started(folder, *arguments, environment=None):
    """A command in a session of its own; whatever is left of it is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "onnxcp", *map(str, arguments)],
        cwd=folder,
        env=HERE | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def session(leader):
    """Processes of a session that are alive, as {pid: command line}."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_text()
            if int(fields[3]) == leader and command:
                found[int(entry.name)] = command
    return found


def workers(leader):
    return [pid for pid, command in session(leader).items() if "popen_loky" in command]


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def last_line(process):
    """Standard error without the phases that -v logs."""
    out, err = process.communicate(timeout=20)
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("[")]  # the time: progress
    assert len(lines) == 1, err
    return lines[0]


def optimize(folder, model, *arguments, **more):
    command = ["optimize", model, "-o", "o.onnx", "-v", "--form", "cp3", *ONE]
    return started(folder, *command, *arguments, **more)


SIGNALS = {
    "ctrl-c while timing": (PHASES[1], 0.0, [signal.SIGINT]),
    "ctrl-c while workers start": (PHASES[2], 0.0, [signal.SIGINT]),
    "ctrl-c while workers import": (PHASES[2], 0.2, [signal.SIGINT]),
    "ctrl-c while workers fit": (PHASES[2], 1.0, [signal.SIGINT]),
    "ctrl-c pressed three times": (PHASES[2], 0.6, [signal.SIGINT] * 3),
    "a termination, sent twice": (PHASES[2], 0.6, [signal.SIGTERM] * 2),
}


@posix
@linux
@pytest.mark.parametrize("row", SIGNALS.values(), ids=SIGNALS)
def test_a_run_ends_at_once_and_leaves_nothing_after(row, model, tmp_path):
    phase, delay, signals = row
    with optimize(tmp_path, model, "--jobs", 2) as process:
        wait_for(process, phase)
        time.sleep(delay)
        for number in signals:
            os.killpg(process.pid, number)
            time.sleep(0.02)
        assert last_line(process) == "error: interrupted; no output was written"
        assert process.returncode == INTERRUPTED
        wait_until(lambda: not session(process.pid))
    assert not list(tmp_path.iterdir())


@posix
@linux
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_termination_of_the_first_process_alone_ends_its_workers_too(jobs, model, tmp_path):
    with optimize(tmp_path, model, "--jobs", jobs) as process:
        wait_for(process, PHASES[2])
        wait_until(lambda: jobs == 1 or workers(process.pid))
        process.terminate()
        assert last_line(process) == "error: interrupted; no output was written"
        assert process.returncode == INTERRUPTED
        wait_until(lambda: not session(process.pid))
    assert not list(tmp_path.iterdir())


@posix
@linux
def test_a_worker_killed_from_outside_ends_the_run_with_a_remedy(model, tmp_path):
    with optimize(tmp_path, model, "--jobs", 2) as process:
        wait_for(process, PHASES[2])
        wait_until(lambda: workers(process.pid))
        os.kill(workers(process.pid)[0], signal.SIGKILL)
        line = last_line(process)
    assert process.returncode == WRONG_USE
    assert "a fitting process was killed" in line
    assert "--jobs" in line
    assert not list(tmp_path.iterdir())


@posix
@linux
def test_a_run_that_is_killed_takes_its_workers_along_and_the_next_one_sweeps_up(model, tmp_path):
    shared = tmp_path / "tmp"
    shared.mkdir()
    with optimize(tmp_path, model, "--jobs", 2, environment={"TMPDIR": str(shared)}) as process:
        wait_for(process, PHASES[2])
        wait_until(lambda: len(workers(process.pid)) == 2)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not workers(process.pid), 30)
    left = [path.name for path in (*tmp_path.iterdir(), *shared.iterdir())]
    assert len([name for name in left if "onnxcp-" in name]) == 2
    reserve([tmp_path / "o.onnx"], Reads())
    temporary.sweep(shared, temporary.SHARED_NAME)  # as the next use of such a folder does
    assert [path.name for path in tmp_path.iterdir()] == ["tmp"]
    assert not [path for path in shared.iterdir() if "onnxcp-" in path.name]


SHADOWS = ("typer", "numpy", "onnx", "json", "re", "pathlib", "loky", "cloudpickle", "typing")


@posix
def test_nothing_is_imported_from_the_current_folder(tmp_path):
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    command = ["optimize", str(MODEL), "-o", "o.onnx", "--form", "cp3", "--no-cache", "--quiet"]
    command += ["--rank", "block/*=16", "--jobs", "2", "--iterations", "8"]
    done = subprocess.run(
        [sys.executable, "-m", "onnxcp", *command],
        cwd=tmp_path,
        env=HERE,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@posix
def test_a_full_disk_ends_the_run_with_a_remedy(model, tmp_path):
    limited = f"ulimit -f 64; exec {sys.executable} -m onnxcp optimize {model} -o o.onnx"
    done = subprocess.run(
        ["bash", "-c", f"{limited} --rank 'conv0=64' --jobs 1"],
        cwd=tmp_path,
        env=HERE,
        capture_output=True,
        text=True,
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == WRONG_USE
    assert "o.onnx: cannot be written" in line
    assert "space" in line
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


@posix
def test_a_reader_that_has_enough_is_no_error(model, tmp_path):
    with started(tmp_path, "inspect", model) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(20) == 1


NEED_A_RUNTIME = [("optimize",), ("verify", "m.onnx"), ("benchmark",), ("inspect", "--profile")]


def without_runtime(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_RUNTIME, *map(str, arguments)],
        cwd=folder,
        env=HERE,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("command", NEED_A_RUNTIME, ids=lambda c: c[0])
def test_a_missing_runtime_names_the_command_that_installs_it(command, model):
    done = without_runtime(model.parent, *command, model.name)
    (line,) = done.stderr.splitlines()
    assert done.returncode == MISSING
    assert line.startswith("error: ONNX Runtime is not installed: pip install 'onnxcp[cpu]'")
    assert done.stdout == ""
    assert [p.name for p in model.parent.iterdir()] == ["m.onnx"]


def test_inspect_needs_no_runtime(model):
    done = without_runtime(model.parent, "inspect", model.name)
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 of 3 layers eligible" in done.stdout


def test_processes_with_threads_of_their_own_fit_what_one_process_fits(tmp_path):
    """Linear algebra runs on one thread wherever a fit is made, whatever the environment says:
    with two, sums are rounded otherwise."""
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    written = []
    for jobs, threads in ((1, {}), (2, {}), (1, {"OMP_NUM_THREADS": "1"})):
        written.append(tmp_path / f"{len(written)}.onnx")
        command = ["optimize", str(MODEL), "-o", str(written[-1]), "--form", "cp3", "--no-cache"]
        command += ["--include", "block/*", "--rank", "*=64", "--jobs", str(jobs), "--quiet"]
        subprocess.run(
            [sys.executable, "-m", "onnxcp", *command, "--iterations", "8"],
            env=environment | threads,
            check=True,
        )
    assert len({path.read_bytes() for path in written}) == 1
