"""Latency tables: made by `profile`, read by `optimize`, refused where they do not belong."""

import json
import pathlib
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from onnxcp.cli import app
from onnxcp.errors import TableError
from onnxcp.latency import table
from onnxcp.latency.candidates import Latency, Measured
from onnxcp.latency.table import Check, Table
from onnxcp.measure.timing import Speedup
from onnxcp.plan import Choice

pytestmark = pytest.mark.usefixtures("quiet")
ROOT = pathlib.Path(__file__).parents[2]
MODEL, DATA = ROOT / "models/digits.onnx", ROOT / "models/digits.npz"
FORM = ["--form", "cp3"]
ROW = Latency(2.0, (Measured(Choice("cp3", 16), 1.0, Speedup(2.0, 1.9, 2.1)),))
MADE = Table(
    model="m.onnx",
    environment={"machine": "x86_64", "cpu": "one", "cpu_flags": [], "onnxruntime": "1"},
    provider="cpu",
    options={},
    threads=1,
    shapes={"x": (1, 3, 8, 8)},
    forms=("cp3",),
    total=10.0,
    rows={"key": ROW},
)


def onnxcp(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """The table of the bundled model on this machine."""
    path = tmp_path_factory.mktemp("table") / "latency.json"
    ended = onnxcp("profile", MODEL, "-o", path, "--threads", 1, *FORM)
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert "candidates timed" in ended.stdout
    return path


def changed(path, tmp_path, **changes):
    document = {**json.loads(path.read_text()), **changes}
    other = tmp_path / "changed.json"
    other.write_text(json.dumps(document))
    return other


def test_a_table_reads_as_it_was_written(tmp_path):
    path = tmp_path / "t.json"
    whole = replace(MADE, checks=(Check(8.0, 9.0),))
    path.write_text(table.to_text(whole))
    assert table.from_file(path) == whole


def with_floats(floats):
    """A row of a chain that leaves something in float."""
    return {"key": replace(ROW, tried=(replace(ROW.tried[0], choice=Choice("cp3", 16, floats)),))}


def test_what_stays_in_float_is_told_where_there_is_any(tmp_path):
    path, mixed = tmp_path / "t.json", replace(MADE, precision="int8", rows=with_floats("chain"))
    path.write_text(table.to_text(mixed))
    assert table.from_file(path) == mixed
    assert '"floats": "chain"' in path.read_text()
    assert "floats" not in table.to_text(MADE)


def test_without_checks_nothing_is_scaled():
    assert (MADE.scale, MADE.disagrees) == (1.0, False)


def test_the_scale_is_what_whole_models_save_over_what_rows_say():
    checked = replace(MADE, checks=(Check(8.0, 7.0), Check(6.0, 4.5)))
    assert checked.scale == pytest.approx((3.0 + 5.5) / (2.0 + 4.0))
    assert checked.disagrees


@pytest.mark.parametrize("measured", [12.0, 9.9, 1.0])
def test_a_scale_that_is_not_plausible_is_not_applied_and_the_table_declared_rough(measured):
    checked = replace(MADE, checks=(Check(8.0, measured),))
    assert (checked.is_reliable, checked.scale) == (False, 1.0)
    assert "do not add up" in checked.doubt
    assert "not affected" in checked.doubt


def test_layers_that_save_more_than_the_whole_model_takes_leave_no_time_below_nothing():
    over = replace(MADE, total=1.5, checks=(Check(-0.2, 1.0), Check(0.3, 1.1)))
    assert not over.is_reliable
    saved = over.scale_of([ROW]) * (ROW.dense - ROW.tried[0].seconds)
    assert 0 < over.total - saved < over.total


def test_times_of_another_machine_are_named(profiled, tmp_path):
    here = table.from_file(profiled)
    assert here.foreign() == []
    there = {**here.environment, "cpu": "Another CPU"}
    (difference,) = replace(here, environment=there).foreign()
    assert difference.startswith("cpu Another CPU, here ")


def damaged(**changes):
    return json.dumps({**table.to_document(MADE), **changes}, default=str)


WORDS = "make it again with onnxcp profile"
BAD = {
    "truncated": (table.to_text(MADE)[:200], "damaged", WORDS),
    "no JSON": ("latency", "not a latency table", WORDS),
    "another JSON": ("[1]", "not a latency table", WORDS),
    "a plan": ('{"plan_version": 2}', "not a latency table", WORDS),
    "of a later version": (damaged(latency_version=9), "version 9, not 1", WORDS),
    "without rows": (damaged(rows=None), "not a latency table", WORDS),
    "with a time of nothing": (damaged(total=0.0), "not a latency table", WORDS),
    "with something in float in a float model": (
        table.to_text(replace(MADE, rows=with_floats("chain"))),
        "not a latency table",
        WORDS,
    ),
    "with something unknown in float": (
        table.to_text(replace(MADE, precision="int8", rows=with_floats("x"))),
        "damaged",
        WORDS,
    ),
    "of a provider without a name": (damaged(provider="../x"), "not a latency table", WORDS),
}


@pytest.mark.parametrize("row", BAD.values(), ids=BAD)
def test_a_table_is_refused_that_is(row, tmp_path):
    text, *words = row
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(TableError) as caught:
        table.from_file(path)
    assert all(word in str(caught.value) for word in (str(path), *words))
    ended = onnxcp("optimize", MODEL, "-o", tmp_path / "o.onnx", "--latency", path)
    assert ended.exit_code == 2
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "o.onnx").exists()


def test_a_missing_table_is_refused(tmp_path):
    ended = onnxcp("optimize", MODEL, "-o", tmp_path / "o.onnx", "--latency", tmp_path / "none")
    assert (ended.exit_code, "No such file" in ended.stderr) == (2, True)


REFUSED = {
    "other threads": (["--threads", 2], "was measured with 1 threads"),
    "another provider": (["--provider", "cuda"], "leave --provider"),
    "forced ranks": (["--rank", "*=16"], "ranks are given by --rank"),
    "a form it has no times of": (["--form", "tucker2"], "has no times of tucker2"),
}


@pytest.mark.parametrize("row", REFUSED.values(), ids=REFUSED)
def test_a_table_does_not_go_with(row, profiled, tmp_path):
    options, words = row
    ended = onnxcp("optimize", MODEL, "-o", tmp_path / "o.onnx", "--latency", profiled, *options)
    assert ended.exit_code == 2
    assert words in ended.stderr


def test_a_table_of_other_layers_names_one_it_lacks(profiled, tmp_path):
    other = changed(profiled, tmp_path, rows={})
    ended = onnxcp("optimize", MODEL, "-o", tmp_path / "o.onnx", "--latency", other, *FORM)
    assert ended.exit_code == 2
    assert "another model" in ended.stderr


def test_profile_keeps_a_table_that_is_there(profiled):
    before = profiled.read_text()
    ended = onnxcp("profile", MODEL, "-o", profiled)
    assert ended.exit_code == 2
    assert "--overwrite" in ended.stderr
    assert profiled.read_text() == before


LAYERS = ["--include", "stem/*", "--include", "block/conv1"]  # the fits of all take half a minute
BUDGET = ["--data", DATA, "--max-drop", 0.02, "--jobs", 1, "--iterations", 8, *FORM, *LAYERS]


def planned(profiled, tmp_path, name, *more):
    output, run = tmp_path / f"{name}.onnx", tmp_path / f"{name}.json"
    given = ["--latency", profiled, "--report", run]
    ended = onnxcp("optimize", MODEL, "-o", output, *given, *BUDGET, *more)
    assert run.is_file(), ended.stderr
    return ended, output, json.loads(run.read_text())


def test_a_table_and_a_seed_make_the_same_bytes_with_and_without_a_cache(profiled, tmp_path):
    _, one, _ = planned(profiled, tmp_path, "one", "--no-cache")
    _, two, _ = planned(profiled, tmp_path, "two", "--cache", tmp_path / "kept")
    _, again, _ = planned(profiled, tmp_path, "again", "--cache", tmp_path / "kept")
    assert one.read_bytes() == two.read_bytes() == again.read_bytes()
    assert one.with_suffix(".plan.json").read_bytes() == two.with_suffix(".plan.json").read_bytes()


def test_a_table_of_another_machine_decides_and_is_said_to(profiled, tmp_path):
    environment = {**json.loads(profiled.read_text())["environment"], "cpu": "Another CPU"}
    other = changed(profiled, tmp_path, environment=environment)
    ended, output, report = planned(other, tmp_path, "other")
    assert ended.exit_code == 0, ended.stderr
    assert "by the latency table" in report["verdict"]
    assert any("another machine" in warning for warning in report["warnings"])
    assert report["search"]["foreign"]
    assert output.is_file()


def test_a_table_of_a_provider_that_is_not_here_plans_without_timing(profiled, tmp_path):
    other = changed(profiled, tmp_path, provider="cuda")
    ended, output, report = planned(other, tmp_path, "cuda")
    assert ended.exit_code == 0
    assert report["latency"] is None
    assert "by the latency table" in report["verdict"]
    assert output.is_file()


def test_the_times_of_a_table_are_those_of_a_report(profiled, tmp_path):
    _, _, report = planned(profiled, tmp_path, "times")
    rows = table.from_file(profiled).rows.values()
    dense = {round(1e3 * row.dense, 9) for row in rows}
    assert {round(s["ms_before"], 9) for s in report["sites"] if s["ms_before"]} <= dense
    assert np.isfinite(report["search"]["predicted_ms"])
