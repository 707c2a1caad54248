"""Sessions run where they were asked to, or say why not. Providers that this machine lacks
are played by sessions that are made up."""

import os
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest
from bound import bound_outputs

from onnxcp.errors import MissingPackage, ModelError, ProviderError, UsageError
from onnxcp.runtime import ort, sessions
from onnxcp.runtime.provider_table import PROVIDERS
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import Runner, open_runner

onnxruntime = pytest.importorskip("onnxruntime")
MODEL = pathlib.Path(__file__).parents[2] / "models/digits.onnx"
IMAGES = {"input": np.random.default_rng(0).random((2, 1, 8, 8), np.float32)}
XNNPACK, CPU, CUDA = (PROVIDERS[name].ort_name for name in ("xnnpack", "cpu", "cuda"))


class Session:
    """A session whose nodes are given as (provider, type) and whose runs fail with `error`."""

    def __init__(self, nodes=(), providers=(XNNPACK, CPU), error=None):
        self.nodes, self.providers, self.error = nodes, providers, error

    def get_providers(self):
        return list(self.providers)

    def get_inputs(self):
        return [SimpleNamespace(name="x")]

    def get_outputs(self):
        return [SimpleNamespace(name="y")]

    def get_provider_graph_assignment_info(self):
        return [
            SimpleNamespace(
                ep_name=where,
                get_nodes=lambda op=op, i=i: [SimpleNamespace(op_type=op, name=f"{op}{i}")],
            )
            for i, (where, op) in enumerate(self.nodes)
        ]

    def run(self, names, feeds):
        if self.error is not None:
            raise self.error
        return [np.zeros(1)]


@pytest.fixture
def started(monkeypatch):
    """Sessions that start as given, on a runtime that offers what is asked for."""

    def start(made, log=""):
        def session(model, options, *, providers, enable_fallback):
            os.write(2, log.encode() if options.log_severity_level < ort.SILENT else b"")
            if isinstance(made, Exception):
                raise made
            return made

        monkeypatch.setattr(onnxruntime, "InferenceSession", session)

    offered = (XNNPACK, CUDA, "TensorrtExecutionProvider", CPU)
    monkeypatch.setattr(sessions, "available", lambda: offered)
    monkeypatch.setattr(sessions, "load_cuda", lambda: None)
    monkeypatch.setattr(sessions, "no_cuda", lambda needed: None)
    return start


def test_nodes_that_would_run_elsewhere_are_counted_and_named(started):
    started(Session([(XNNPACK, "Conv"), (CPU, "Softmax"), (CPU, "Softmax"), (CPU, "LSTM")]))
    with pytest.raises(ProviderError) as caught:
        open_runner(b"", Target.named("xnnpack"))
    told = str(caught.value)
    assert "3 of 4 nodes" in told
    assert "2 Softmax, 1 LSTM" in told
    assert "first Softmax1, Softmax2, LSTM3" in told
    assert told.endswith("use provider=xnnpack,cpu")


def test_shape_arithmetic_may_run_elsewhere(started):
    started(Session([(XNNPACK, "Conv"), (CPU, "Shape"), (CPU, "Gather"), (CPU, "Concat")]))
    open_runner(b"", Target.named("xnnpack"))


def test_a_provider_that_gets_no_node_is_refused(started):
    started(Session([(CPU, "Shape"), (CPU, "Reshape")]))
    with pytest.raises(ProviderError, match="all shape arithmetic"):
        open_runner(b"", Target.named("xnnpack"))


def test_a_model_that_folds_to_nothing_runs_anywhere(started):
    started(Session())
    open_runner(b"", Target.named("xnnpack"))


def test_nodes_may_run_on_providers_that_were_named(started):
    started(Session([(XNNPACK, "Conv"), (CPU, "Softmax")]))
    open_runner(b"", Target.named("xnnpack,cpu"))


def test_a_named_helper_is_no_leave_to_run_all_nodes_there(started):
    started(Session([(CPU, "Conv"), (CPU, "Softmax")]))
    with pytest.raises(ProviderError, match="provider xnnpack,cpu: 0 of 2 nodes"):
        open_runner(b"", Target.named("xnnpack,cpu"))


def test_a_runtime_that_does_not_tell_where_nodes_run_proves_nothing(started, monkeypatch):
    started(Session([(XNNPACK, "Conv")]))
    monkeypatch.delattr(Session, "get_provider_graph_assignment_info")
    with pytest.raises(ProviderError, match=r"1\.24 or newer: pip install --upgrade onnxruntime"):
        open_runner(b"", Target.named("xnnpack"))


def test_a_session_that_fell_back_in_silence_is_refused_with_what_it_logged(started):
    log = "\x1b[m2026 [E:onnxruntime:Default, a.cc:9 Create] no such device\n"
    started(Session(providers=[CPU]), log)
    with pytest.raises(ProviderError) as caught:
        open_runner(b"", Target.named("xnnpack"))
    assert str(caught.value) == f"provider xnnpack: {XNNPACK} did not load: no such device"


def test_a_named_helper_that_fell_away_is_refused(started):
    started(Session([(XNNPACK, "Conv")], providers=[XNNPACK, CPU]))
    with pytest.raises(ProviderError, match=r"provider tensorrt: TensorrtExecution.*did not load"):
        open_runner(b"", Target.named("xnnpack,tensorrt"))


def test_a_provider_that_the_runtime_was_not_built_with_names_the_swap(monkeypatch):
    monkeypatch.setattr(sessions, "available", lambda: (CPU,))
    monkeypatch.setattr(sessions, "builds", lambda: {"onnxruntime": "1.31.1"})
    with pytest.raises(ProviderError) as caught:
        open_runner(MODEL, Target.named("cuda"))
    swap = ": pip uninstall -y onnxruntime && pip install 'onnxcp[gpu]'"
    assert str(caught.value).endswith(swap)


def test_a_provider_that_no_wheel_brings_names_no_command(monkeypatch):
    monkeypatch.setattr(sessions, "available", lambda: (CPU,))
    with pytest.raises(ProviderError, match=r"install a build that does$"):
        open_runner(MODEL, Target.named("xnnpack"))


def test_a_failure_that_blames_the_provider_is_not_the_models(started):
    started(RuntimeError("CUDNN failure 1001: CUDNN_STATUS_NOT_INITIALIZED"))
    with pytest.raises(ProviderError, match=r"CUDNN failure.*check CUDA and cuDNN: pip install"):
        open_runner(b"", Target.named("cuda"))


def test_a_failure_that_blames_the_model_is_not_the_providers(started):
    started(RuntimeError("Node (conv) has input size 1 not in range"))
    with pytest.raises(ModelError, match="loading the model: ONNX Runtime reports: Node"):
        open_runner(b"", Target.named("cuda"))


def test_an_option_that_the_runtime_refuses_is_wrong_use(started):
    started(RuntimeError("Unknown provider option: nonsense"))
    with pytest.raises(UsageError, match="provider_option: provider xnnpack reports: Unknown"):
        open_runner(b"", Target.named("xnnpack"))


MEMORY = RuntimeError("a.cc:9 Failed to allocate memory for requested buffer of size 1024")


def failing(error, name):
    return Runner(Session(error=error), "m.onnx", Target.named(name))


@pytest.mark.parametrize("bound", [False, True], ids=["plain", "bound"])
def test_a_device_without_memory_left_is_no_fault_of_the_model(bound):
    runner = failing(MEMORY, "cuda")
    with pytest.raises(
        ProviderError, match=r"running m\.onnx: the device is out of memory"
    ) as told:
        runner.bound({}) if bound else runner({})
    assert told.value.exit_code == 3
    assert "smaller batch" in str(told.value)


@pytest.mark.parametrize("bound", [False, True], ids=["plain", "bound"])
def test_a_run_that_fails_is_told_with_its_model(bound):
    runner = failing(RuntimeError("[ONNXRuntimeError] : 1 : FAIL : bad shape"), "cpu")
    with pytest.raises(ModelError, match=r"running m\.onnx: ONNX Runtime reports: bad shape"):
        runner.bound({})() if bound else runner({})


def test_an_exception_of_another_kind_is_our_bug():
    with pytest.raises(KeyError):
        failing(KeyError("x"), "cpu")({})


def test_runs_on_bound_memory_give_what_plain_runs_give(monkeypatch):
    runner = open_runner(MODEL, Target.named("cpu", 1))
    found = bound_outputs(monkeypatch, runner, "cpu", IMAGES)
    for one, other in zip(found, runner(IMAGES), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_timed_run_on_the_cpu_is_repeated():
    run = open_runner(MODEL, Target.named("cpu", 1)).bound(IMAGES)
    assert [run(), run()] == [None, None]


def test_what_is_logged_past_python_is_read_and_stderr_stays_usable(capfd):
    line = b"2026-01-01 [E:onnxruntime:Default, x.cc:1 f] /a/b.cc:22 void f(int) Boom\n"
    assert sessions._first_logged_error(lambda: os.write(2, line)) == "Boom"
    os.write(2, b"still here\n")
    assert capfd.readouterr().err == "still here\n"


def test_stderr_is_given_back_by_a_start_that_fails(capfd):
    def start():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        sessions._first_logged_error(start)
    os.write(2, b"still here\n")
    assert capfd.readouterr().err == "still here\n"


@pytest.fixture
def module(monkeypatch):
    """A runtime made up of these attributes."""

    def put(**attributes):
        monkeypatch.setattr(ort, "runtime", lambda: SimpleNamespace(**attributes))

    ort.load_cuda.cache_clear()
    yield put
    ort.load_cuda.cache_clear()


def test_preloading_cuda_prints_nothing(module, capfd):
    module(preload_dlls=lambda: print("Failed to load libcudnn.so.9"))
    ort.load_cuda()
    assert capfd.readouterr() == ("", "")


def test_a_runtime_that_preloads_nothing_is_left_alone(module):
    module()
    ort.load_cuda()


@pytest.mark.parametrize("version", [("13.0", 13), ("", 0), (None, 0)])
def test_a_runtime_tells_the_cuda_it_was_built_for(version, module):
    told, major = version
    module(cuda_version=told)
    assert ort.cuda_major() == major
    assert ort.cuda_version() == (told or None)


def test_a_runtime_whose_files_are_gone_is_told_with_the_command_that_mends_it(monkeypatch):
    monkeypatch.delattr(onnxruntime, "InferenceSession")
    monkeypatch.setattr(ort, "builds", lambda: {"onnxruntime-gpu": "1.31.1"})
    words = r"its files are missing.*--force-reinstall --no-deps onnxruntime-gpu==1\.31\.1$"
    with pytest.raises(MissingPackage, match=words):
        ort.runtime()
