"""Reports against golden files; RUN.json against the shipped schema.

After a wanted change of wording: `UPDATE_GOLDEN=1 python -m pytest tests/report/test_report.py`,
then read the difference.
"""

import json
import os
import pathlib
from dataclasses import replace

import jsonschema
import pytest
from pages import as_json, as_markdown

from onnxcp.cli.flags import as_flags
from onnxcp.measure.evidence import doubt, weigh
from onnxcp.measure.metric_table import METRICS
from onnxcp.report.json import schema
from onnxcp.report.optimize import to_text
from onnxcp.results import (
    AccuracyRecord,
    CheckRecord,
    EpochRecord,
    FinetuneRecord,
    LatencyRecord,
    ModelRecord,
    ParetoRecord,
    PlanRecord,
    QuantizationRecord,
    Report,
    RivalRecord,
    SearchRecord,
    SiteRecord,
    TrialRecord,
    VerificationRecord,
)

GOLDEN = pathlib.Path(__file__).parent / "golden"
FIGURES = {"mean": 2.0, "min": 1.8, "std": 0.1, "p50": 2.0, "p90": 2.2, "p95": 2.3, "p99": 2.5}

REPLACED = SiteRecord(
    name="features/block_1/a_long_scope_name/conv2/Conv",
    shape=(64, 64, 3, 3),
    stride=(1, 1),
    decision="cp3",
    reason="measured 2.10× faster",
    kind="measured",
    macs_before=2_359_296,
    macs_after=561_152,
    rank=64,
    error=0.25,
    outcome="converged",
    sensitivity_before=3.1e5,
    sensitivity_after=2.2e4,
    ms_before=0.42,
    ms_after=0.2,
    fit_seconds=1.25,
)
KEPT = SiteRecord(
    name="stem/Conv",
    shape=(32, 3, 3, 3),
    stride=(2, 2),
    decision="kept",
    reason="no chain is measured faster; the best, cp3 at rank 16: 1.20× slower",
    kind="not-faster",
    macs_before=216_000,
    macs_after=216_000,
    ms_before=0.1,
    ms_after=0.1,
)
FASTER = Report(
    tool={"name": "onnxcp", "version": "0.1.0"},
    command="onnxcp optimize net.onnx --data val.npz",
    verdict="1.60× faster, top1 0.9154 → 0.9080 (drop +0.0074)",
    reason={"kind": "faster", "speed": "1.60× faster"},
    model=ModelRecord(
        "net.onnx",
        "ab" * 32,
        "net.cp.onnx",
        2_575_296,
        777_152,
        37_728,
        9_632,
        bytes_before=152_000,
        bytes_after=40_100,
        written="chains in float",
    ),
    environment={
        "platform": "Linux",
        "python": "3.11.7",
        "onnxruntime": "1.31.1",
        "machine": "x86_64",
        "cpu_flags": ["avx2", "avx512f"],
        "channel_block": 16,
    },
    provider="cpu",
    settings={"form": "auto"},
    sites=(REPLACED, KEPT),
    plan={REPLACED.name: {"form": "cp3", "rank": 64}},
    exit_code=0,
    accuracy=AccuracyRecord(
        "top1", 0.9154, 0.9080, 0.0074, (0.0019, 0.0129), 5000, 0.01, "val.npz", True
    ),
    latency=LatencyRecord(
        FIGURES,
        {k: v / 1.6 for k, v in FIGURES.items()},
        1.6,
        (1.55, 1.64),
        200,
        1,
        "cpu",
        {"x": (1, 3, 32, 32)},
    ),
    verification=VerificationRecord(True, 3.2e-07, 1e-3, 2),
    search=SearchRecord(
        strategy="knapsack",
        objective="top1 drop ≤ 0.01",
        samples={"calibration": 1024, "search": 1667, "final": 3333},
        held_out=True,
        tried=2,
        is_late=False,
        seconds=11.4,
        predicted_ms=0.2533,
        scale=1.048,
        checks=(CheckRecord(0.3155, 0.3016),),
        foreign=(),
        judged=(
            PlanRecord(17, 0.239, 0.0396, 0.0339, 0.0138),
            PlanRecord(16, 0.253, 0.0312, 0.0244, 0.0084),
        ),
    ),
    pareto=(
        ParetoRecord("front/m.1.onnx", 1.4, 0.61, -0.001, (-0.01, 0.008)),
        ParetoRecord("front/m.2.onnx", 1.9, 0.45, 0.004, (-0.005, 0.013)),
    ),
    warnings=("5000 samples are too few to be sure of the budget",),
)
NOTHING = replace(
    FASTER,
    verdict="nothing written, no chain is measured clearly faster than the layer it would replace",
    reason={"kind": "none-faster"},
    model=replace(
        FASTER.model,
        output=None,
        macs_after=2_575_296,
        parameters_after=37_728,
        bytes_after=152_000,
        written=None,
    ),
    sites=(KEPT,),
    plan={},
    exit_code=1,
    accuracy=None,
    latency=None,
    verification=None,
    warnings=("ACCURACY WAS NOT MEASURED: pass --data",),
)
INT8 = replace(
    FASTER,
    precision="int8",
    model=replace(FASTER.model, written="chains in int8"),
    pareto=(),
    quantization=QuantizationRecord(
        scheme={
            "activations": "uint8",
            "weights": "int8",
            "per_channel": True,
            "reduce_range": False,
            "method": "percentile",
            "percentile": 99.999,
            "floats": (),
        },
        samples=128,
        chained=replace(FASTER.accuracy, after=0.9110, drop=0.0044),
        rivals=(
            RivalRecord("int8 alone", True, 0.0012, 1.62, 1.23, (1.3, 1.28, 1.33)),
            RivalRecord("chains in float", False, 0.0131, 1.4, 1.43, None),
        ),
    ),
)
TRAINED = replace(
    FASTER,
    verdict="2.30× faster, top1 0.9154 → 0.9108 (drop +0.0046)",
    pareto=(),
    finetune=FinetuneRecord(
        epochs=(EpochRecord(0, 0.0, 0.41, 0.91), EpochRecord(1, 0.39, 0.13, 0.968)),
        best_epoch=1,
        stopped=None,
        parity=3e-7,
        recipe={"epochs": 20, "batch": 128},
        samples={"train": 27000, "held_out": 1000},
        before=replace(FASTER.accuracy, after=0.8904, drop=0.025),
        without_accuracy=FASTER.accuracy,
        without_speedup=1.6,
        trials=(TrialRecord(17, 0.19, 3, 0.012, 0.03), TrialRecord(17, 0.21, 20, 0.004, 0.01)),
        seconds=912.4,
    ),
    warnings=(),
)
REPORTS = {"faster": FASTER, "nothing": NOTHING, "trained": TRAINED, "int8": INT8}


def golden(name, text):
    """Compare with a file; or write it where that is asked for."""
    file = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@pytest.mark.parametrize(("left", "said"), [(0.2, False), (0.5, True)])
def test_a_training_that_rounds_in_vain_is_said_to(left, said):
    rounded = (EpochRecord(0, 0.0, 0.41, 0.91), EpochRecord(1, 0.39, left, 0.9))
    report = replace(TRAINED, finetune=replace(TRAINED.finetune, rounded=rounded))
    text = as_markdown(report)
    assert "1 epoch more, with int8 rounding" in text
    assert ("none reduced the loss" in text) == said


@pytest.mark.parametrize("name", REPORTS)
def test_markdown_reads_as_agreed(name):
    golden(f"{name}.md", as_flags(as_markdown(REPORTS[name])))


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("width", [80, 120])
def test_text_reads_as_agreed_and_stays_within_the_terminal(name, width):
    text = as_flags(to_text(REPORTS[name], width))
    golden(f"{name}.{width}.txt", text)
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_run_json_satisfies_its_schema(report):
    jsonschema.validate(json.loads(as_json(report)), schema())


def test_the_schema_refuses_what_is_no_run():
    document = json.loads(as_json(FASTER))
    for broken in ({**document, "exit_code": 5}, {**document, "extra": 1}, {"schema_version": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema())


def test_what_stays_in_float_is_told():
    sites = [replace(REPLACED, floats="windows"), replace(REPLACED, name="last", floats="chain")]
    mixed = replace(FASTER, sites=(*sites, KEPT))
    assert "| cp3 rank 64, windows in float |" in as_markdown(mixed)
    assert "| cp3 rank 64, in float |" in as_markdown(mixed)
    text = to_text(mixed, 80)
    assert f"windows in float: {REPLACED.name}\nchains in float: last\n" in text
    assert max(map(len, text.splitlines())) <= 80
    jsonschema.validate(json.loads(as_json(mixed)), schema())


LOWER = AccuracyRecord(
    "mae", 0.1, 0.3, 0.2, (0.1, 0.3), 50, 0.05, "d.npz", measured=True, higher_is_better=False
)


@pytest.mark.parametrize("write", [as_markdown, lambda report: to_text(report, 200)])
@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_a_metric_that_is_better_lower_never_drops(report, write):
    bound = report.search and replace(report.search, objective=METRICS["mae"].drop_name)
    trained = report.finetune and replace(report.finetune, before=LOWER, without_accuracy=LOWER)
    rounded = report.quantization and replace(report.quantization, chained=LOWER)
    text = write(
        replace(report, accuracy=LOWER, search=bound, finetune=trained, quantization=rounded)
    )
    assert "mae 0.1000 → 0.3000, rise +0.2000 (95 % +0.1000 to +0.3000" in text
    assert "drop" not in text.replace(report.verdict, "").replace(report.command, "")


def test_doubts_about_a_metric_that_is_better_lower_speak_of_its_rise():
    broken = doubt(LOWER, weigh(LOWER), plans=1, share=1.0)
    across = replace(LOWER, budget=0.2)
    unknown = doubt(across, weigh(across), plans=1, share=1.0)
    assert "the rise's 95 % interval" in broken
    assert "measured: a rise of +0.2000" in unknown
    assert "the rise is too near the budget" in unknown
    assert "drop" not in broken + unknown


def test_numbers_json_can_not_hold_become_null():
    wild = replace(FASTER, accuracy=replace(FASTER.accuracy, drop=float("inf")))
    document = json.loads(as_json(wild))
    assert document["accuracy"]["drop"] is None
    jsonschema.validate(document, schema())


def test_warnings_come_first():
    for text in (to_text(NOTHING, 80), as_markdown(NOTHING).split("\n", 2)[2]):
        assert text.lstrip("!> *").startswith("ACCURACY WAS NOT MEASURED")
