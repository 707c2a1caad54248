"""What `benchmark` does with real sessions: sweeps, files in and out, exit codes."""

import csv
import json
import pathlib

import pytest
from typer.testing import CliRunner

from onnxcp.cli import app
from onnxcp.runtime import sessions

MODEL = pathlib.Path(__file__).parents[2] / "models/digits.onnx"
SHORT = ("--threads", "1", "--duration", "0", "--iterations", "30")


def benchmark(*arguments):
    return CliRunner().invoke(app, ["benchmark", *(str(a) for a in arguments)])


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.json"
    ended = benchmark(MODEL, "--batch", "1,4", *SHORT, "--report", path)
    assert (ended.exit_code, ended.stderr) == (0, "")
    return path


def edited(path, change):
    """The file after `change` of its document."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path


def scaled(factor):
    """Times as if the model had taken `factor` times as long."""

    def change(document):
        for run in document["runs"]:
            for model in run["models"]:
                model["p50_ci"] = [factor * value for value in model["p50_ci"]]
                model["milliseconds"]["p50"] *= factor

    return change


def test_a_sweep_times_every_batch_size(base):
    document = json.loads(base.read_text())
    assert [run["batch"] for run in document["runs"]] == [1, 4]
    assert [next(iter(run["shapes"].values()))[0] for run in document["runs"]] == [1, 4]
    assert document["threads"] == 1
    for run in document["runs"]:
        figures = run["models"][0]["milliseconds"]
        assert figures["min"] <= figures["p50"] <= figures["p90"] <= figures["p99"]
        low, high = run["models"][0]["p50_ci"]
        assert low <= figures["p50"] <= high
        assert run["turns"] == 30


def test_far_slower_than_the_baseline_fails(base):
    ended = benchmark(
        MODEL, *SHORT, "--baseline", edited(base, scaled(0.2)), "--fail-if-slower", "5%"
    )
    assert ended.exit_code == 1
    assert "slower than before" in ended.stdout
    assert ended.stderr.startswith("FAILED batch 1")


def test_far_faster_than_the_baseline_passes_and_is_said(base):
    ended = benchmark(
        MODEL, *SHORT, "--baseline", edited(base, scaled(5)), "--fail-if-slower", "5%"
    )
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert "faster than before" in ended.stdout


def test_a_baseline_without_a_limit_only_tells(base):
    ended = benchmark(MODEL, *SHORT, "--baseline", edited(base, scaled(0.2)), "--json")
    assert ended.exit_code == 0
    (change,) = json.loads(ended.stdout)["change"]
    assert change["slower"] > 1


def test_every_run_is_exported(tmp_path):
    for name in ("t.csv", "t.json"):
        path = tmp_path / name
        assert benchmark(MODEL, MODEL, *SHORT, "--export-times", path).exit_code == 0
        text = path.read_text()
        rows = json.loads(text) if name == "t.json" else list(csv.DictReader(text.splitlines()))
        assert len(rows) == 60
        assert {row["model"] for row in rows} == {str(MODEL)}
        assert all(float(row["ms"]) > 0 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--duration", "1e9"], "86400"),
        (["--duration", "nan"], "86400"),
        (["--duration", "-1"], "86400"),
        (["--iterations", "0"], "give 8"),
        (["--iterations", "10000000000"], "1000000"),
        (["--warmup", "-1"], "give 0"),
        (["--batch", "0"], "from 1"),
        (["--batch", "1,,8"], "1,8,32"),
        (["--batch", "x"], "1,8,32"),
        (["--fail-if-slower", "5%"], "than what"),
        (["--baseline", "none.json"], "none.json"),
        (["--cuda-graph"], "--provider cuda"),
        (["--report", "x.txt"], ".json"),
        (["--export-times", "x.txt"], ".csv"),
        (["--report", "nowhere/x.json"], "nowhere/x.json"),
        (["--report", "x.json", "--export-times", "x.json"], "another name"),
    ],
)
def test_wrong_use_is_one_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = benchmark(MODEL, *arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert not list(tmp_path.iterdir())


def test_a_report_that_exists_is_kept(base):
    before = base.read_bytes()
    ended = benchmark(MODEL, *SHORT, "--report", base)
    assert ended.exit_code == 2
    assert "--overwrite" in ended.stderr
    assert base.read_bytes() == before


def test_a_session_that_fails_in_the_middle_is_one_line_and_writes_nothing(tmp_path, monkeypatch):
    real = sessions.runtime().InferenceSession.run
    runs = []

    def run(*given):
        runs.append(1)
        if len(runs) > 20:
            raise RuntimeError("the device went away")
        return real(*given)

    monkeypatch.setattr(sessions.runtime().InferenceSession, "run", run)
    ended = benchmark(MODEL, *SHORT, "--report", tmp_path / "r.json")
    assert ended.exit_code == 2
    (line,) = ended.stderr.splitlines()
    assert "digits.onnx" in line
    assert "the device went away" in line
    assert not list(tmp_path.iterdir())
