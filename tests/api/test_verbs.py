"""What the verbs return, and how they refuse what they cannot do."""

import json
import re

import jsonschema
import numpy as np
import onnx
import pytest
from digits import DATA, MODEL
from digits import onnxcp as command
from tiny import chain_model

import onnxcp
from onnxcp.chain import Stage
from onnxcp.errors import OutputError, PlanError, TableError, UsageError
from onnxcp.report.json import schema

SITE = "block/conv1"
RUN = {"form": "svd", "threads": 1, "jobs": 1, "iterations": 8}
FORCED = {**RUN, "rank": {SITE: 8}}
FLAGS = ("--form", "svd", "--threads", "1", "--jobs", "1", "--iterations", "8", "--no-cache")
TEMPORARY = re.compile(r"onnxcp-[0-9a-f]{16}")


@pytest.fixture(scope="module")
def original():
    return onnx.load(MODEL)


@pytest.fixture(scope="module")
def samples():
    stored = np.load(DATA)
    return {"input": stored["input"][:96], "label": stored["label"][:96]}


@pytest.fixture(scope="module")
def forced(original, samples, quiet):
    return onnxcp.optimize(original, data=samples, **FORCED)


@pytest.fixture(scope="module")
def left_alone(original, quiet):
    """Of a model whose only layer that may be replaced is too small to gain."""
    return onnxcp.optimize(original, include="head/gemm", **RUN)


def test_a_faster_model_comes_with_its_plan_and_figures(forced):
    assert onnx.checker.check_model(forced.model) is None
    assert forced.plan == onnxcp.Plan({SITE: onnxcp.Choice("svd", 8)})
    assert [site.name for site in forced.replaced] == [SITE]
    assert forced.speedup_ci[0] <= forced.speedup <= forced.speedup_ci[1]
    assert forced.accuracy.samples > 0
    assert forced.reason == forced.report.verdict


def test_a_model_left_alone_is_a_value_with_the_reason(left_alone):
    assert left_alone.model is None
    assert left_alone.plan == onnxcp.Plan()
    assert left_alone.reason.startswith("nothing written, ")


def test_a_model_left_alone_cannot_be_saved(left_alone, tmp_path):
    with pytest.raises(UsageError, match="there is no model to save: nothing written, "):
        left_alone.save(tmp_path / "out.onnx")
    assert not any(tmp_path.iterdir())


def test_an_input_passed_on_is_the_model_itself(original, quiet):
    result = onnxcp.optimize(original, include="head/gemm", allow_unchanged=True, **RUN)
    assert result.model == original
    assert result.reason.startswith("left unchanged, ")


def test_what_is_saved_is_what_the_command_writes(tmp_path, quiet):
    written, saved = tmp_path / "command.onnx", tmp_path / "saved.onnx"
    data = ("--data", DATA, "--samples", "96", "--rank", f"{SITE}=8")
    assert command("optimize", MODEL, "-o", written, *data, *FLAGS).exit_code == 0
    result = onnxcp.optimize(MODEL, data=DATA, samples=96, **FORCED)
    assert result.save(saved) == saved
    assert saved.read_bytes() == written.read_bytes()
    plans = [path.with_suffix(".plan.json").read_bytes() for path in (written, saved)]
    assert plans[0] == plans[1]


def test_saving_replaces_nothing_unasked(forced, tmp_path):
    path = tmp_path / "out.onnx"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"out\.onnx: exists"):
        forced.save(path)
    assert path.read_bytes() == b"mine"
    forced.save(path, overwrite=True)
    assert onnx.load(path) == forced.model


def test_an_output_is_written_where_it_is_named(original, samples, tmp_path, quiet):
    path = tmp_path / "out.onnx"
    result = onnxcp.optimize(original, data=samples, output=path, **FORCED)
    assert onnx.load(path) == result.model
    assert result.report.model.output == str(path)


def test_a_large_tensor_stays_outside_the_file_where_it_came_from(tmp_path, quiet):
    outside = tmp_path / "outside.onnx"
    onnx.save(onnx.load(MODEL), outside, save_as_external_data=True, size_threshold=0)
    result = onnxcp.optimize(outside, rank={SITE: 8}, **RUN)
    result.save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx.data").stat().st_size > 100_000
    assert onnx.load(tmp_path / "out.onnx").graph.node == result.model.graph.node


def test_a_result_is_shown_in_every_format(forced):
    document = json.loads(forced.to_json())
    jsonschema.validate(document, schema())
    assert document["verdict"] == forced.reason
    assert forced.to_markdown().startswith("# onnxcp: ")
    assert forced.reason in forced.to_text(1000)


def test_what_was_in_memory_is_called_by_its_keyword(forced):
    assert forced.report.model.path == "model"
    assert forced.report.model.output == "in memory"
    assert forced.report.settings["data"] == ["data"]
    assert not TEMPORARY.search(forced.to_json() + forced.to_markdown() + forced.to_text())


def test_advice_names_keywords(left_alone):
    (advice,) = [w for w in left_alone.warnings if "ACCURACY WAS NOT MEASURED" in w]
    assert "pass data" in advice
    assert "--" not in advice


def test_fits_are_kept_where_a_call_is_told_to_and_else_nowhere(
    original, samples, tmp_path, monkeypatch, quiet
):
    usual, named = tmp_path / "usual", tmp_path / "named"
    monkeypatch.setenv("ONNXCP_CACHE", str(usual))
    onnxcp.optimize(original, data=samples, **FORCED)
    assert not usual.exists()
    onnxcp.optimize(original, data=samples, cache=named, **FORCED)
    assert any(named.rglob("*.npz"))
    onnxcp.optimize(original, data=samples, no_cache=False, **FORCED)
    assert any(usual.rglob("*.npz"))


def test_a_result_is_replayed_as_a_plan(original, samples, forced, quiet):
    again = onnxcp.optimize(original, data=samples, plan=forced, threads=1, iterations=8)
    assert again.plan == forced.plan
    assert again.model == forced.model


def test_a_metric_may_be_a_function(original, samples, quiet):
    def right(outputs, labels):
        return float((outputs["logits"].argmax(1) == labels).mean())

    result = onnxcp.optimize(original, data=samples, metric=right, max_drop="50%", **FORCED)
    assert result.accuracy.metric == "right"
    assert result.accuracy.before == pytest.approx(1.0, abs=0.05)


def test_no_text_holds_an_option_as_it_is_written_inside(original, left_alone, quiet):
    verified = onnxcp.verify(original, original)
    timed = onnxcp.benchmark(original, iterations=8, duration=0, threads=1)
    results = (left_alone, verified, timed, onnxcp.inspect(original), onnxcp.doctor(provider="cpu"))
    for result in results:
        assert "<<" not in result.to_text() + result.to_json() + result.to_markdown()
        assert result.to_markdown().startswith("# onnxcp: ")
    assert "give rtol/atol or max_drop" in verified.to_text(width=120)


def test_progress_is_told_to_whoever_asks(original, quiet):
    phases = []
    onnxcp.verify(original, original, progress=lambda phase, done, total: phases.append(phase))
    assert "compare outputs" in phases


def test_models_that_differ_are_a_value_that_says_where(original, forced):
    found = onnxcp.verify(original, forced.model, rtol=0, atol={"logits": 1e-9})
    assert not found.ok
    assert found.failures[0].startswith("logits: ")
    assert found.outputs[0].max_abs > 0
    assert found.surgery.ok


def test_a_replaced_kernel_passes_the_surgery_check(original):
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in original.graph.initializer}
    chain = onnxcp.decompose(weights[f"{SITE}.weight"], "svd", 8)
    found = onnxcp.verify(original, onnxcp.replace(original, {SITE: chain}), require_surgery=True)
    assert found.ok
    assert [(s.name, s.form, s.rank) for s in found.surgery.sites] == [(SITE, "svd", 8)]


def test_layers_are_listed_with_what_can_be_replaced(original):
    found = onnxcp.inspect(original)
    assert SITE in [layer.name for layer in found.eligible]
    assert found.model == "model"
    assert json.loads(found.to_json())["macs"] == found.macs > 0
    assert SITE in found.to_text()


def test_ranks_are_listed_as_curves(original):
    curves = onnxcp.inspect(original, ranks=True, form="svd", jobs=1).curves
    errors = [point.error for curve in curves if curve.site == SITE for point in curve.points]
    assert errors == sorted(errors, reverse=True)
    assert len(errors) >= 2


def test_one_model_is_timed_without_a_speedup(original, quiet):
    found = onnxcp.benchmark(original, iterations=8, duration=0, threads=1)
    assert (found.speedup, found.speedup_ci, found.ok) == (None, None, True)
    assert found.milliseconds[0]["p50"] > 0
    assert found.models == ("model",)


def test_two_models_are_timed_with_their_ratio(original, forced, quiet):
    how = {"iterations": 8, "duration": 0, "threads": 1}
    found = onnxcp.benchmark(original, forced.model, fail_if_slower=0.05, **how)
    assert found.ok
    assert found.speedup == pytest.approx(
        found.milliseconds[0]["p50"] / found.milliseconds[1]["p50"]
    )
    slower = onnxcp.benchmark(forced.model, original, fail_if_slower="5%", **how)
    assert not slower.ok
    assert [change.batch for change in slower.slower] == [1]


def test_an_earlier_result_is_a_baseline(original, quiet):
    how = {"iterations": 8, "duration": 0, "threads": 1}
    before = onnxcp.benchmark(original, batch=[1, 4], **how)
    again = onnxcp.benchmark(original, batch=[1, 4], baseline=before, fail_if_slower="5%", **how)
    assert [change.batch for change in again.changes] == [1, 4]
    assert again.ok


def test_every_run_is_a_row_of_a_table(original, quiet):
    found = onnxcp.benchmark(original, iterations=8, duration=0, threads=1)
    assert len(found.to_csv().splitlines()) == 1 + len(found.runs[0].timings[0].seconds)


@pytest.fixture(scope="module")
def one_layer(tmp_path_factory):
    """The file of a model of a single convolution, whose kernel has rank one."""
    stage = Stage("only", np.ones((64, 64, 3, 3), np.float32))
    path = tmp_path_factory.mktemp("models") / "one.onnx"
    path.write_bytes(chain_model((stage,), (1, 64, 16, 16), np.dtype(np.float32)))
    return path


def test_a_profile_is_what_optimize_plans_by(one_layer, quiet):
    table = onnxcp.profile(one_layer, form="svd", threads=1)
    result = onnxcp.optimize(one_layer, latency=table, form="svd", jobs=1, iterations=8)
    (layer,) = onnxcp.inspect(one_layer).eligible
    assert set(result.plan.choices) == {layer.name}
    assert result.report.settings["latency"] == "latency"


def test_a_profile_is_saved_as_the_command_writes_it(one_layer, tmp_path, quiet):
    onnxcp.profile(one_layer, form="svd", threads=1).save(tmp_path / "ours.json")
    written = tmp_path / "command.json"
    ended = command("profile", one_layer, "-o", written, "--form", "svd", "--threads", "1")
    assert ended.exit_code == 0
    tables = [json.loads(path.read_text()) for path in (tmp_path / "ours.json", written)]
    assert tables[0] == tables[1]
    with pytest.raises(OutputError, match="exists"):
        onnxcp.profile(one_layer, output=written)


def test_a_provider_that_works_leaves_no_problem():
    found = onnxcp.doctor(provider="cpu")
    assert found.ok
    assert [proof.provider for proof in found.proofs] == ["cpu"]
    assert json.loads(found.to_json())


def test_training_gives_a_model_of_the_same_graph(original, samples, forced, quiet):
    pytest.importorskip("torch")
    result = onnxcp.finetune(
        original, forced.model, data=samples, train=dict(samples), epochs=1, threads=1
    )
    assert [n.name for n in result.model.graph.node] == [n.name for n in forced.model.graph.node]
    assert result.model != forced.model
    assert result.ok
    assert not TEMPORARY.search(result.to_json() + result.to_text())


MISUSE = {
    "a drop in percent": ({"max_drop": 0.7}, UsageError, r"\Amax_drop=0.7: top1 lies between"),
    "no drop": ({"max_drop": -1.0}, UsageError, r"\Amax_drop=-1.0: give an absolute drop"),
    "two budgets": (
        {"max_drop": 0.1, "max_error": 0.1},
        UsageError,
        r"\Amax_drop and max_error exclude each other",
    ),
    "a text for a number": ({"threads": "two"}, UsageError, r"\Athreads='two': give a whole"),
    "a fraction of threads": ({"threads": 1.5}, UsageError, r"\Athreads=1.5: give a whole number"),
    "True threads": ({"threads": True}, UsageError, r"\Athreads=True: give a whole number"),
    "a number for a switch": ({"sequential": 2}, UsageError, r"\Asequential=2: give True or False"),
    "a number for a name": ({"form": 3}, UsageError, r"\Aform=3: give a text"),
    "an unknown form": ({"form": "cp9"}, UsageError, r"\Aform=cp9: unknown; choose auto"),
    "an unknown strategy": ({"strategy": "x"}, UsageError, r"\Astrategy=x: unknown"),
    "a seed below 0": ({"seed": -1}, UsageError, r"\Aseed=-1: must be at least 0"),
    "no samples": ({"samples": 0}, UsageError, r"\Asamples=0: must be at least 1"),
    "no time": ({"time_budget": "soon"}, UsageError, r"\Atime_budget='soon': write it as 90"),
    "a rank of no layer": ({"rank": {"x": 3}}, PlanError, r"\Arank='x=3': matches no site"),
    "a rank too high": ({"rank": {SITE: 9999}}, PlanError, "rank 9999 is not in 1"),
    "a shape of no input": (
        {"input_shape": {"x": (1, 2)}},
        UsageError,
        r"\Ainput_shape[ =]x.*: no such input",
    ),
    "an option of no provider": (
        {"provider_option": {"a": 1}},
        UsageError,
        r"\Aprovider_option=a=1: provider cpu has no such option",
    ),
    "an unknown provider": ({"provider": "abacus"}, UsageError, r"\Aprovider=abacus: unknown"),
    "an unknown metric": ({"metric": "x"}, UsageError, "metric.x"),
    "an unknown preset": ({"preprocess": "x"}, Exception, r"\Apreprocess=x: unknown"),
    "training that is not asked for": (
        {"epochs": 3},
        UsageError,
        r"\Aepochs=3: goes with finetune",
    ),
    "a table that is none": ({"latency": DATA}, TableError, "digits.npz"),
    "a plan that is none": ({"plan": DATA}, PlanError, "digits.npz"),
}


@pytest.mark.parametrize("kind", MISUSE)
def test_misuse_is_refused_with_the_name_of_the_keyword(kind, original, samples):
    keywords, error, said = MISUSE[kind]
    with pytest.raises(error, match=said) as raised:
        onnxcp.optimize(original, data=samples, **keywords)
    assert isinstance(raised.value, onnxcp.OnnxcpError)
    assert "--" not in str(raised.value)


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"fail_if_slower": 0.05}, "fail_if_slower=0.05: than what"),
        ({"batch": 0}, "batch=0: give a number from 1"),
        ({"iterations": 2}, "iterations=2: give 8 to"),
        ({"duration": -1}, "duration=-1: give 0 to"),
    ],
)
def test_a_benchmark_refuses_with_the_name_of_the_keyword(original, keywords, said):
    with pytest.raises(UsageError, match=said):
        onnxcp.benchmark(original, **keywords)


def test_keywords_of_no_group_are_refused_by_their_names_too(original):
    for verb, keywords, said in (
        (onnxcp.inspect, {"profile": "yes"}, "profile='yes': give True or False"),
        (onnxcp.inspect, {"ranks": 2}, "ranks=2: give True or False"),
        (onnxcp.profile, {"output": 3}, "output=3: give a path"),
        (onnxcp.optimize, {"output": 3}, "output=3: give a path"),
        (onnxcp.benchmark, {"baseline": 3}, "baseline=3: give a path"),
    ):
        with pytest.raises(UsageError, match=said):
            verb(original, **keywords)
    with pytest.raises(UsageError, match="reference_provider=3: give a text"):
        onnxcp.verify(original, original, reference_provider=3)
    with pytest.raises(UsageError, match=r"timeout=0\.5: must be at least 1"):
        onnxcp.doctor(timeout=0.5)


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"rtol": {"x": 1.0}}, "rtol.x:1.0: no such output"),
        ({"rtol": -1.0}, "rtol.-1.0: give a number from 0 up"),
        ({"check_error_stat": "mode"}, "check_error_stat.mode: choose one of"),
        ({"max_drop": 0.1}, "max_drop.0.1: needs data"),
        ({"precision": "int9"}, "precision=int9: unknown"),
    ],
)
def test_a_comparison_refuses_with_the_name_of_the_keyword(original, keywords, said):
    with pytest.raises(UsageError, match=said):
        onnxcp.verify(original, original, **keywords)
