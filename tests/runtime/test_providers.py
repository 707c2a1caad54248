"""Providers by name: which there are, which options they take, and what they add."""

import numpy as np
import pytest

from onnxcp.errors import UsageError
from onnxcp.runtime import providers
from onnxcp.runtime.provider_table import PROVIDERS, REDUCED
from onnxcp.runtime.providers import Target

OFFERED = ("CPUExecutionProvider", "XnnpackExecutionProvider", "AzureExecutionProvider")


@pytest.fixture
def offered(monkeypatch):
    """What the runtime of these tests was built with, and one that no row names."""
    monkeypatch.setattr(providers, "available", lambda: (*OFFERED, "VitisAIExecutionProvider"))


@pytest.mark.parametrize("names", ["xnnpack,cpu", " xnnpack , CPU ", "XNNPACK,cpu"])
def test_a_list_is_a_provider_and_those_that_help_out(names):
    target = Target.named(names)
    assert (target.provider, target.others) == (PROVIDERS["xnnpack"], (PROVIDERS["cpu"],))
    assert target.name == "xnnpack,cpu"


def test_a_recorded_name_gives_the_same_target():
    for name in ("cpu", "xnnpack,cpu", "cuda"):
        assert Target.recorded(name, 2, {}) == Target.named(name, 2)


def test_a_recorded_provider_need_not_be_offered_here():
    assert Target.recorded("vitisai", 0, {}).provider.ort_name == "vitisaiExecutionProvider"


@pytest.mark.parametrize("names", ["tpu", "cpu,tpu", "", "cpu,", "CPUExecutionProvider"])
def test_an_unknown_provider_is_refused_with_those_there_are(names, offered):
    with pytest.raises(UsageError, match=r"provider=.*: unknown; choose one of cpu, cuda.*vitis"):
        Target.named(names)


def test_any_other_that_the_runtime_offers_is_used_by_name(offered):
    row = Target.named("vitisai").provider
    assert (row.name, row.ort_name) == ("vitisai", "VitisAIExecutionProvider")
    assert (row.tolerance, row.known, row.device) == (REDUCED, None, "cpu")


def test_a_provider_that_runs_models_on_other_machines_is_refused(offered):
    with pytest.raises(UsageError, match="provider=azure: unknown"):
        Target.named("azure")


def test_negative_threads_are_refused():
    with pytest.raises(UsageError, match="threads=-1"):
        Target.named("cpu", -1)


WRONG = {
    "an option of the CPU, which takes none": ("cpu", {"a": "1"}, "it takes none; leave it out"),
    "an unknown one": ("cuda", {"use_tf23": "1"}, "no such option; choose one of .*use_tf32"),
    "neither yes nor no": ("cuda", {"use_tf32": "yes"}, "use_tf32=yes: must be one of 0, 1"),
    "none of the choices": ("cuda", {"cudnn_conv_algo_search": "BEST"}, "EXHAUSTIVE, HEURISTIC"),
    "no number": ("cuda", {"device_id": "one"}, "device_id=one: must be a whole number"),
    "half a number": ("cuda", {"gpu_mem_limit": "1.5"}, "must be a whole number"),
}


@pytest.mark.parametrize("row", WRONG.values(), ids=WRONG)
def test_an_option_is_refused_that_is(row):
    name, options, words = row
    with pytest.raises(UsageError, match=f"provider_option=.*{words}"):
        Target.named(name, options=options)


def test_options_that_only_the_runtime_knows_are_left_to_it():
    target = Target.named("openvino", options={"device_type": "GPU"})
    assert target.settings == {"device_type": "GPU"}


def test_the_number_of_threads_is_an_option_of_openvino_unless_one_says_otherwise():
    assert Target.named("openvino", 2).settings == {"num_of_threads": "2"}
    assert Target.named("openvino").settings == {}
    given = Target.named("openvino", 2, {"num_of_threads": "3"})
    assert given.settings == {"num_of_threads": "3"}


def test_defaults_stand_unless_options_say_otherwise():
    assert Target.named("cuda").settings == {"cudnn_conv_algo_search": "EXHAUSTIVE"}
    given = Target.named("cuda", options={"cudnn_conv_algo_search": "HEURISTIC"})
    assert given.settings == {"cudnn_conv_algo_search": "HEURISTIC"}


def test_outputs_are_compared_without_tf32_unless_options_say_otherwise():
    assert Target.named("cuda").exact.settings["use_tf32"] == "0"
    assert Target.named("cuda", options={"use_tf32": "1"}).exact.settings["use_tf32"] == "1"
    assert Target.named("cpu").exact == Target.named("cpu")


def test_only_an_option_asks_for_a_graph_and_unhurried_runs_do_without():
    hurried = Target.named("cuda", 3, {"enable_cuda_graph": "1", "use_tf32": "0"})
    assert hurried.has_graph
    assert not Target.named("cuda", options={"enable_cuda_graph": "0"}).has_graph
    assert not Target.named("cuda").has_graph
    assert hurried.unhurried == Target.named("cuda", 0, {"use_tf32": "0"})


def test_a_provider_of_less_precision_has_wider_tolerances():
    kinds = [np.dtype(name) for name in ("float16", "float32", "float64")]
    for kind in kinds:
        assert Target.named("openvino").tolerance(kind) >= Target.named("cpu").tolerance(kind)


def test_every_row_is_found_by_its_own_name():
    assert [(name, row.name) for name, row in PROVIDERS.items()] == [(n, n) for n in PROVIDERS]
    assert all(row.ort_name.endswith(providers.SUFFIX) for row in PROVIDERS.values())
    assert len({row.ort_name for row in PROVIDERS.values()}) == len(PROVIDERS)
