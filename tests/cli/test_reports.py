"""Every command writes its result in every format, from one page."""

import json

import numpy as np
import onnx
import pytest
from digits import DATA, MODEL, onnxcp
from tiny import chain_model

from onnxcp.chain import Stage
from onnxcp.report import WRITERS

ONCE = ("--threads", 1, "--iterations", 8)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model of one convolution, whose name is markup."""
    stage = Stage("on|ly", np.ones((64, 64, 3, 3), np.float32))
    path = tmp_path_factory.mktemp("models") / "small.onnx"
    path.write_bytes(chain_model((stage,), (1, 64, 16, 16), np.dtype(np.float32)))
    return path


@pytest.fixture(scope="module")
def rewritten(small, tmp_path_factory, quiet):
    path = tmp_path_factory.mktemp("models") / "rewritten.onnx"
    ended = onnxcp("optimize", small, "-o", path, "--form", "svd", "--jobs", 1, *ONCE)
    assert ended.exit_code == 0, ended.output
    return path


@pytest.fixture
def commands(small, rewritten, tmp_path):
    """A run of every command that is done in a moment."""
    return {
        "optimize": (small, "-o", tmp_path / "o.onnx", "--form", "svd", "--jobs", 1, *ONCE),
        "inspect": (small,),
        "ranks": (small, "--ranks", "--form", "svd", "--jobs", 1, "--no-cache"),
        "verify": (small, rewritten),
        "benchmark": (small, rewritten, "--duration", 0, *ONCE),
        "profile": (small, "-o", tmp_path / "t.json", "--form", "svd", "--threads", 1),
        "doctor": ("--provider", "cpu"),
    }


NAMES = ("optimize", "inspect", "ranks", "verify", "benchmark", "profile", "doctor")


def run(name, arguments, *options):
    return onnxcp("inspect" if name == "ranks" else name, *arguments, *options)


@pytest.mark.parametrize("name", NAMES)
def test_a_command_writes_every_format_at_once(name, commands, tmp_path, quiet):
    files = [tmp_path / f"report{suffix}" for suffix in WRITERS]
    ended = run(name, commands[name], *(o for file in files for o in ("--report", file)))
    assert ended.exit_code == 0, ended.output
    texts = {file.suffix: file.read_text(encoding="utf-8") for file in files}
    assert json.loads(texts[".json"])
    assert texts[".md"].startswith("# onnxcp: ")
    assert "\n|---" in texts[".md"]
    assert "<<" not in "".join(texts.values())


@pytest.mark.parametrize("name", sorted({*NAMES} - {"optimize", "profile", "benchmark"}))
def test_a_report_in_json_is_what_is_printed_as_json(name, commands, tmp_path):
    file = tmp_path / "report.json"
    ended = run(name, commands[name], "--json", "--report", file)
    printed, written = json.loads(ended.stdout), json.loads(file.read_text())
    for document in (printed, written) if name == "doctor" else ():
        document.pop("providers")  # with the seconds that a proof took
    assert printed == written


@pytest.mark.parametrize("name", NAMES)
def test_a_report_that_exists_is_refused_before_any_work(name, commands, tmp_path):
    file = tmp_path / "report.md"
    file.write_text("mine")
    ended = run(name, commands[name], "--report", file)
    assert ended.exit_code == 2
    assert "report.md: exists" in ended.stderr
    assert not ended.stdout
    assert file.read_text() == "mine"
    if name in ("inspect", "doctor"):
        assert run(name, commands[name], "--report", file, "--overwrite").exit_code == 0
        assert file.read_text().startswith("# onnxcp")


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_format_is_refused_with_those_that_there_are(name, commands, tmp_path):
    ended = run(name, commands[name], "--report", tmp_path / "report.txt")
    assert ended.exit_code == 2
    assert "report.txt: name a file that ends in .json or .md" in ended.stderr


def test_a_report_may_not_replace_a_model_that_is_read(small, tmp_path):
    model = tmp_path / "model.md"
    model.write_bytes(small.read_bytes())
    ended = onnxcp("inspect", model, "--report", model, "--overwrite")
    assert ended.exit_code == 2
    assert onnx.load(model, format="protobuf")


def test_names_that_are_markup_stay_in_their_cells(small, tmp_path):
    onnxcp("inspect", small, "--report", tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert r"/on\|ly | Conv | 64×64×3×3 |" in text


def test_a_verification_that_fails_says_so_in_its_headline(small, tmp_path):
    other = tmp_path / "other.onnx"
    proto = onnx.load(small)
    weight = proto.graph.initializer[0]
    values = 2 * onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(proto, other)
    ended = onnxcp("verify", small, other, "--rtol", 0.1, "--report", tmp_path / "report.md")
    assert ended.exit_code == 1
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# onnxcp: FAILED, 1 failure")
    assert "> **y: " in text


def test_a_new_format_is_one_row_for_every_command(commands, tmp_path, monkeypatch):
    monkeypatch.setitem(WRITERS, ".title", lambda page: page.headline)
    for name in ("inspect", "verify", "doctor"):
        file = tmp_path / f"{name}.title"
        assert run(name, commands[name], "--report", file).exit_code == 0
        assert file.read_text()


def test_a_training_is_reported_in_every_format(tmp_path, quiet):
    pytest.importorskip("torch")
    made, data = tmp_path / "made.onnx", ("--data", f"{DATA}[:96]")
    options = ("--form", "svd", "--rank", "block/conv1=8", "--jobs", 1, *ONCE)
    assert onnxcp("optimize", MODEL, "-o", made, *data, *options).exit_code == 0
    reports = ("--report", tmp_path / "run.md", "--report", tmp_path / "run.json")
    how = ("--train", f"{DATA}[96:]", "--epochs", 1, "--threads", 1, *reports)
    ended = onnxcp("finetune", MODEL, made, "-o", tmp_path / "tuned.onnx", *data, *how)
    assert ended.exit_code == 0, ended.output
    assert json.loads((tmp_path / "run.json").read_text())["ok"]
    assert "| 1 | " in (tmp_path / "run.md").read_text()
