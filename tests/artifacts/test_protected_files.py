"""No command replaces a file that it reads, whatever option or name leads to it."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from onnxcp.cli import app
from onnxcp.plan import Plan, Recipe, to_json

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="makes links"),
    pytest.mark.usefixtures("quiet"),  # no claim here is about time
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def model(location, name="m.onnx"):
    """A model whose weights lie in a file of this name."""
    made = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        "g (float[1,4,8,8] x) => (float[1,4,8,8] y) { y = Conv (x, w) }"
    )
    weight = np.ones((4, 4, 1, 1), np.float32)
    made.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save_model(made, name, save_as_external_data=True, size_threshold=0, location=location)


def hashed():
    return {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def linked(name, target):
    Path(name).hardlink_to(target)
    return name


READ = {
    "its own data": ["optimize", "m.onnx", "-o", "data"],
    "its own data, by their folder": ["optimize", "m.onnx", "-o", "sub/../data"],
    "its own data, by a hard link": ["optimize", "m.onnx", "-o", "hard"],
    "its own data, as a table": ["profile", "m.onnx", "-o", "data"],
    "the data of a model that is compared": ["benchmark", "p.onnx", "m.onnx", "--report", "d.json"],
    "a plan that is replayed": ["optimize", "m.onnx", "-o", "p.onnx", "--plan", "p.plan.json"],
    "a latency table": ["optimize", "m.onnx", "--latency", "l.json", "--report", "l.json"],
    "a preprocessing": ["optimize", "m.onnx", "--preprocess", "l.json", "--report", "l.json"],
    "a baseline": ["benchmark", "m.onnx", "--baseline", "l.json", "--report", "l.json"],
    "a baseline, with all times": [
        *("benchmark", "m.onnx", "--baseline", "l.json", "--export-times", "l.json")
    ],
    "samples": ["optimize", "m.onnx", "-o", "d.npz", "--data", "d.npz[:2]"],
    "an image of a folder": ["optimize", "m.onnx", "-o", "sub/class/a.png", "--data", "sub"],
    "a model, of a front": ["optimize", "sub/m.onnx", "--pareto", "sub"],
}


@pytest.mark.parametrize("command", READ.values(), ids=READ)
def test_a_file_that_is_read_is_safe_from_overwrite(command):
    model("data")
    model("d.json", "p.onnx")
    Path("sub/class").mkdir(parents=True)
    model("m.1.onnx", "sub/m.onnx")
    linked("hard", "data")
    for name in ("d.npz", "l.json", "sub/class/a.png"):
        Path(name).write_text('{"units": "onnxcp"}')
    Path("p.plan.json").write_text(to_json(Plan(), "0", Recipe()))
    before = hashed()
    ended = CliRunner().invoke(app, [*command, "--overwrite"])
    assert ended.exit_code == 2
    assert hashed() == before
    assert "this run reads that file" in ended.stderr


NAMES = ["o.onnx.data", "o.plan.json", "o.onnx", "r.json"]


@pytest.mark.parametrize("location", NAMES)
def test_the_data_of_the_input_are_safe_under_every_name_that_a_run_writes(location):
    model(location)
    before = hashed()
    command = ["optimize", "m.onnx", "-o", "o.onnx", "--report", "r.json", "--overwrite"]
    ended = CliRunner().invoke(app, command)
    assert (ended.exit_code, hashed()) == (2, before)
    assert f"{location}: this run reads that file" in ended.stderr


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_data_beside_what_a_training_writes_are_safe(more):
    pytest.importorskip("torch")
    model("u.onnx.data")
    before = hashed()
    command = ["finetune", "m.onnx", "m.onnx", "-o", "u.onnx", "--data", "d.npz", *more]
    ended = CliRunner().invoke(app, command)
    assert (ended.exit_code, hashed()) == (2, before)
    assert "u.onnx.data: " in ended.stderr


def test_a_run_that_ends_second_does_not_replace_what_the_first_one_wrote(monkeypatch):
    """Both began when there was nothing."""
    from onnxcp.latency.tabulate import profile as real

    monkeypatch.setattr(
        "onnxcp.latency.tabulate.profile",
        lambda *given, **named: (Path("l.json").write_text("theirs"), real(*given, **named))[1],
    )
    model("data")
    ended = CliRunner().invoke(app, ["profile", "m.onnx", "-o", "l.json", "--threads", "1"])
    assert ended.exit_code == 2
    assert "l.json: was created while this run worked" in ended.stderr
    assert Path("l.json").read_text() == "theirs"
