"""A real scheduler and real workers, each a process of its own on this machine."""

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from digits import DATA, MODEL
from digits import onnxcp as run
from example_sites import site
from processes import INTERRUPTED, MISSING, WRONG_USE, wait_for

import onnxcp
from onnxcp.cluster import dask_client, pool
from onnxcp.cluster.dask_client import Connection
from onnxcp.cluster.pool import Cluster
from onnxcp.errors import ClusterError, UsageError
from onnxcp.fitting import store
from onnxcp.fitting.fits import Fits
from onnxcp.fitting.task import Aim
from onnxcp.forms import DRAFT
from onnxcp.graph.input_specs import parse_shape
from onnxcp.plan import Choice

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("distributed"), reason="needs Dask"),
]

HERE = {**os.environ, "PYTHONPATH": str(Path(onnxcp.__file__).parents[1])}
HERE.pop("OMP_NUM_THREADS", None)  # a worker started without it must make the same model, too
FORCED = ["--form", "cp3", "--rank", "*=16", "--threads", "1", "--iterations", "8"]
LONG = ["--form", "cp3", "--rank", "*=128", "--threads", "1", "--iterations", "8", "--no-cache"]
JUDGED = ["--data", DATA, "--max-drop", "99%"]


class Processes:
    """A scheduler and its workers, with as many threads as given for each."""

    def __init__(self, folder, *threads):
        self.folder = folder
        self.scheduler = self.start("scheduler", "--port", "0", "--scheduler-file", "s.json")
        self.address = json.loads(self.wait_for("s.json", "}"))["address"]
        nanny = ("--no-nanny", "--local-directory", str(folder))
        self.workers = [
            self.start("worker", self.address, *nanny, "--nthreads", str(count), number=number)
            for number, count in enumerate(threads)
        ]
        for number in range(len(threads)):
            self.wait_for(f"worker{number}.log", "Registered to")

    def start(self, kind, *arguments, number=""):
        log = self.folder / f"{kind}{number}.log"
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments]
        command += ["--host", "127.0.0.1", "--no-dashboard"]
        with log.open("wb") as written:
            return subprocess.Popen(command, cwd=self.folder, env=HERE, stderr=written)

    def wait_for(self, name, text, seconds=30.0):
        path, end = self.folder / name, time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(FileNotFoundError):
                if text in path.read_text():
                    return path.read_text()
            time.sleep(0.05)
        raise AssertionError(f"no {text!r} in {name}")

    def end(self):
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture
def processes(tmp_path):
    """For tests that kill some of them."""
    folder = tmp_path / "dask"
    folder.mkdir()
    started = Processes(folder, 1, 1)
    yield started
    started.end()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """For tests that leave them alone."""
    started = Processes(tmp_path_factory.mktemp("dask"), 2, 1)
    yield started.address
    started.end()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Three convolutions, each of which takes about a second to fit at rank 128."""
    text = "".join(f"[conv{i}] x{i + 1} = Conv <pads = [1,1,1,1]> (x{i}, w{i})" for i in range(3))
    made = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        f"g (float[N,128,7,7] x0) => (float[N,128,7,7] x3) {{ {text} }}"
    )
    rng = np.random.default_rng(0)
    for i in range(3):
        weight = rng.standard_normal((128, 128, 3, 3)).astype(np.float32) / 34
        made.graph.initializer.append(onnx.numpy_helper.from_array(weight, f"w{i}"))
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    onnx.save(made, path)
    return path


@pytest.fixture
def called(monkeypatch):
    """Names of the functions that travelled."""
    names, call = [], Cluster.call

    def spied(self, function, *arguments):
        names.append(function.__name__)
        return call(self, function, *arguments)

    monkeypatch.setattr(Cluster, "call", spied)
    return names


def optimized(model, folder, *options):
    """The bytes of the model written, and the report."""
    folder.mkdir()
    report = folder / "run.json"
    ended = run("optimize", model, "-o", folder / "o.onnx", "--report", report, *options)
    assert (ended.exit_code, ended.stderr) == (0, ""), ended.stderr
    return (folder / "o.onnx").read_bytes(), json.loads(report.read_text())


def refused(model, folder, address, *options):
    """The one line that a run ends with."""
    out = folder / "refused.onnx"
    ended = run("optimize", model, "-o", out, *FORCED, "--cluster", address, *options)
    assert (ended.exit_code, ended.stdout) == (MISSING, "")
    assert not out.exists()
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: --cluster {address}: ")
    return line


def after(monkeypatch, count, where, name, then):
    """Something happens once so many calls of a function were made."""
    function, made = getattr(where, name), []

    def spied(*arguments, **named):
        result = function(*arguments, **named)
        made.append(name)
        if len(made) == count:
            then()
        return result

    monkeypatch.setattr(where, name, spied)


@pytest.mark.parametrize(
    "extra", [[], ["--sequential", "--include", "block/*"]], ids=["", "in sequence"]
)
def test_a_cluster_makes_the_same_model(extra, address, called, tmp_path):
    options = [*FORCED, *JUDGED, *extra, "--no-cache"]
    here, one = optimized(MODEL, tmp_path / "here", *options, "--jobs", 1)
    assert not called
    there, two = optimized(MODEL, tmp_path / "there", *options, "--cluster", address)
    assert there == here
    assert two["accuracy"] == one["accuracy"]
    assert set(called) == {"fit_there", "all_outputs"}


def test_a_model_with_external_data_makes_the_same_model(address, called, tmp_path):
    path = tmp_path / "external.onnx"
    onnx.save(onnx.load(MODEL), path, save_as_external_data=True, size_threshold=0)
    options = [*FORCED, *JUDGED, "--include", "block/*", "--no-cache"]
    here, one = optimized(path, tmp_path / "here", *options, "--jobs", 1)
    there, two = optimized(path, tmp_path / "there", *options, "--cluster", address)
    assert there == here
    assert two["accuracy"] == one["accuracy"]
    assert "all_outputs" in called


def test_drafts_are_the_same(address):
    """Each begins with the factors of one at a lower rank, which travel."""
    sites, choice = {"a": site("a", (48, 32, 3, 3))}, Choice("cp3", 64)
    here = Fits(sites, 0).get("a", choice, DRAFT)
    with pool.open_cluster(address) as found:
        there = Fits(sites, 0, found.executor, cluster=found).get("a", choice, DRAFT)
    for one, two in zip(here.factors[0], there.factors[0], strict=True):
        np.testing.assert_array_equal(one, two)


def test_fits_are_kept_here_and_none_is_done_twice(address, called, model, tmp_path):
    options = [*FORCED, "--cache", tmp_path / "cache", "--cluster", address]
    first, _ = optimized(model, tmp_path / "first", *options)
    assert called == ["fit_there"] * 3
    second, _ = optimized(model, tmp_path / "second", *options)
    assert called == ["fit_there"] * 3
    assert second == first


@pytest.fixture(scope="module")
def fitted_here(model, tmp_path_factory):
    return optimized(model, tmp_path_factory.mktemp("run") / "here", *LONG, "--jobs", 1)[0]


@pytest.mark.parametrize("killed", [0, 1])
def test_what_a_killed_worker_was_doing_is_done_by_another(
    killed, fitted_here, processes, model, monkeypatch, tmp_path
):
    def kill():
        time.sleep(0.3)  # both workers have a kernel and fit it by now
        processes.workers[killed].kill()

    after(monkeypatch, 2, Connection, "call", kill)
    there, _ = optimized(model, tmp_path / "there", *LONG, "--cluster", processes.address)
    assert processes.workers[killed].wait(1) < 0
    assert there == fitted_here


def test_a_killed_scheduler_ends_the_run_and_keeps_what_was_done(
    processes, model, monkeypatch, tmp_path
):
    monkeypatch.setattr(dask_client, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(pool, "PAUSE_SECONDS", 0.2)
    after(monkeypatch, 1, store, "save", processes.scheduler.kill)
    line = refused(model, tmp_path, processes.address, "--cache", tmp_path / "cache")
    assert "the scheduler is gone" in line
    assert "fits are kept in the cache; run again" in line
    assert list((tmp_path / "cache").rglob("*.npz"))


IMPATIENT = (
    "from onnxcp.cluster import dask_client, pool;"
    "dask_client.CONNECT_SECONDS, pool.LOST_SECONDS = 1.0, 2.5;"
    "from onnxcp.cli import main; main()"
)


ENDS = {
    "a killed scheduler": ("scheduler", signal.SIGKILL, [], "the scheduler is gone"),
    "a frozen scheduler": ("scheduler", signal.SIGSTOP, [], "no worker answered"),
    "killed workers": ("workers", signal.SIGKILL, [], "no worker answered"),
    "ctrl-c while all is frozen": ("workers", signal.SIGSTOP, [signal.SIGINT], "interrupted"),
}


@pytest.mark.parametrize("row", ENDS.values(), ids=ENDS)
def test_a_run_ends_soon_and_with_one_line(row, processes, model, tmp_path):
    who, number, signals, said = row
    command = ["optimize", model, "-o", "o.onnx", *LONG, "-v", "--cluster", processes.address]
    with contextlib.ExitStack() as ended:
        process = ended.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", IMPATIENT, *map(str, command)],
                cwd=tmp_path,
                env=HERE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        ended.callback(process.kill)
        wait_for(process, "fit the plan")
        time.sleep(0.5)
        for dying in processes.workers if who == "workers" else [processes.scheduler]:
            dying.send_signal(number)
        for ending in signals:
            process.send_signal(ending)
        (line,) = process.communicate(timeout=8)[1].splitlines()
    assert process.returncode == (INTERRUPTED if signals else MISSING)
    assert line.startswith("error: ")
    assert said in line


def test_a_scheduler_without_workers_names_the_command_that_starts_one(
    tmp_path, model, monkeypatch
):
    monkeypatch.setattr(dask_client, "START_SECONDS", 0.5)
    alone = Processes(tmp_path)
    try:
        assert f"`dask worker {alone.address}`" in refused(model, tmp_path, alone.address)
    finally:
        alone.end()


@pytest.fixture
def silent():
    """The address of something that lets connect and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"


def test_an_address_that_refuses_ends_the_run(model, monkeypatch, tmp_path):
    monkeypatch.setattr(dask_client, "CONNECT_SECONDS", 0.5)
    assert "no Dask scheduler answers" in refused(model, tmp_path, "tcp://127.0.0.1:1")


def test_an_address_that_says_nothing_ends_the_run(silent, model, monkeypatch, tmp_path):
    monkeypatch.setattr(dask_client, "CONNECT_SECONDS", 0.5)
    assert "no Dask scheduler answers: no answer" in refused(model, tmp_path, silent)


@pytest.mark.parametrize("address", ["", "host", "tcp://127.0.0.1:port", "tls://127.0.0.1:1"])
def test_what_is_no_address_ends_the_run(address, model, tmp_path):
    assert "no Dask scheduler answers" in refused(model, tmp_path, address)


@pytest.fixture
def another_version(monkeypatch):
    monkeypatch.setattr(dask_client, "__version__", "0.0.0")
    dask_client.versions.cache_clear()
    yield
    dask_client.versions.cache_clear()


def test_other_versions_are_refused(another_version, address, model, tmp_path):
    line = refused(model, tmp_path, address)
    assert f"onnxcp {onnxcp.__version__}, here 0.0.0; install the same packages" in line


def test_a_worker_that_joins_later_with_other_versions_is_refused(address):
    with pool.open_cluster(address) as found:
        found._versions = {**found._versions, "numpy": "0.0"}
        with pytest.raises(ClusterError, match=r"worker tcp://.*: numpy .*, here 0.0"):
            found.call(parse_shape, "x:1")


def test_a_worker_that_lacks_the_package_is_refused():
    with pytest.raises(ClusterError, match="No module named 'onnxcp'; install the same packages"):
        dask_client.refuse_other(ModuleNotFoundError("No module named 'onnxcp'"), {}, "worker")


def test_what_a_function_raises_is_raised_here(address):
    with pool.open_cluster(address) as found, pytest.raises(UsageError, match="input_shape"):
        found.call(parse_shape, "nonsense")


def test_a_shared_value_is_sent_once_for_as_long_as_it_is_alive(address, monkeypatch):
    packed, pack = [], Aim.packed
    monkeypatch.setattr(Aim, "packed", lambda self: packed.append(1) or pack(self))
    aim = Aim(np.ones((4, 4)), 1, (None,), "")
    with pool.open_cluster(address) as found:
        assert [found.call(Aim.__sizeof__, aim) for _ in range(3)] == [128] * 3
        assert len(packed) == 1
        del aim
        assert not found._sent


def test_jobs_and_a_cluster_exclude_each_other(model):
    ended = run("optimize", model, "--cluster", "tcp://127.0.0.1:1", "--jobs", 2)
    assert ended.exit_code == WRONG_USE
    assert "exclude each other" in ended.stderr


def test_without_dask_the_command_that_installs_it_is_named(model, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    ended = run("optimize", model, "-o", tmp_path / "o.onnx", "--cluster", "tcp://127.0.0.1:1")
    assert ended.exit_code == MISSING
    assert ended.stderr == f"error: {dask_client.INSTALL}\n".replace("<<cluster>>", "--cluster")
