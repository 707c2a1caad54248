"""Names of any text: kept in files, harmless where they are shown."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from onnxcp.cli import app
from onnxcp.escape import HIDDEN, code, markdown, visible
from onnxcp.graph import metadata

pytestmark = pytest.mark.usefixtures("quiet")  # no claim here is about time

NAMES = {
    "line separator": "a\u2028b",
    "paragraph separator": "a\u2029b",
    "line feed": "a\nb",
    "carriage return": "a\rb",
    "vertical tab": "a\x0bb",
    "file separator": "a\x1cb",
    "next line": "a\x85b",
    "escape sequence": "a\x1b[31mb\x1b]0;title\x07",
    "NUL": "a\x00b",
    "turned direction": "a\u202eb",
    "markup of the terminal": "[bold]a[/bold][/]",
    "HTML": "<script>alert(1)</script>",
    "a table's border": "a|b`c`|d",
    "Markdown": "**a** [b](c) # d",
    "a glob": "a*?[b]",
    "a JSON list": '["a", "b"]',
    "quotes": "a'b\"c\\",
    "spaces": " a  b ",
    "none": "",
    "chain-like": "x/cp/y",
}
FORCED = "--rank *=4 --form svd --jobs 1 --threads 1 --iterations 8 --no-cache"


def write_model(path: Path, name: str) -> None:
    """A model whose node, tensors and metadata have one name."""
    values = np.random.default_rng(0).standard_normal((8, 8, 3, 3)) / 9
    declare = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", f"w{name}"], ["y"], name=name, pads=[1] * 4)],
        "g",
        [declare("x", TensorProto.FLOAT, [1, 8, 6, 6])],
        [declare("y", TensorProto.FLOAT, [1, 8, 6, 6])],
        [numpy_helper.from_array(values.astype(np.float32), f"w{name}")],
    )
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def run(*arguments: str) -> tuple[int, str]:
    ended = CliRunner().invoke(app, list(arguments))
    return ended.exit_code, ended.stdout + ended.stderr


def is_harmless(text: str) -> bool:
    return all(c == "\n" or unicodedata.category(c) not in HIDDEN for c in text)


@pytest.mark.parametrize("case", NAMES)
def test_a_model_with_such_names_is_optimized_verified_and_left_alone(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    name = NAMES[case]
    write_model(tmp_path / "m.onnx", name)
    reports = ["--report", "r.json", "--report", "r.md"]
    done = [run("optimize", "m.onnx", "-o", "o.onnx", *FORCED.split(), *reports)]
    done.append(run("verify", "m.onnx", "o.onnx", "--require-surgery"))
    done.append(run("inspect", "o.onnx"))
    assert [exit_code for exit_code, _ in done] == [0, 0, 0], done
    again, text = run("optimize", "o.onnx", "-o", "again.onnx", *FORCED.split())
    assert again == 1
    assert "part of a chain that an earlier run made" in " ".join(text.split())
    assert all(is_harmless(text) for _, text in [*done, (again, text)])
    document = json.loads(Path("r.json").read_text())
    assert [site["name"] for site in document["sites"]] == [name or "Conv:y"]
    report = Path("r.md").read_text()
    assert is_harmless(report)
    (row,) = [line for line in report.split("\n") if "svd rank 4" in line]
    assert len(row.replace("\\|", "").strip("|").split("|")) == 8
    assert "<script" not in report.replace("\\<", "")


@pytest.mark.parametrize("case", NAMES)
def test_lists_of_names_come_back_from_metadata(case):
    proto = onnx.ModelProto()
    names = (NAMES[case], "other", NAMES[case] + "\n")
    proto.metadata_props.add(key="k", value=metadata.noted(names))
    assert metadata.listed(proto, "k") == names


@pytest.mark.parametrize(("text", "names"), [("a\nb", ("a", "b")), ("[a]", ("[a]",)), ("", ())])
def test_lists_of_older_versions_are_read(text, names):
    proto = onnx.ModelProto()
    proto.metadata_props.add(key="k", value=text)
    assert metadata.listed(proto, "k") == names


@pytest.mark.parametrize("case", NAMES)
def test_what_is_shown_is_harmless(case):
    assert is_harmless(visible(NAMES[case]))
    assert "\n" not in visible(NAMES[case])


@pytest.mark.parametrize("text", ["conv_12", "Größe 3×3 → 4", "層"])
def test_plain_text_stays_as_it_is(text):
    assert visible(text) == text
    assert markdown(text) == text
    assert code(text) == f"`{text}`"


@pytest.mark.parametrize("command", ["optimize", "inspect", "verify"])
def test_an_error_shows_such_a_path_as_text(command):
    path = "no\x1b[31m[bold]such.onnx"
    exit_code, text = run(command, path, *(["-o", "o.onnx"] if command == "optimize" else []),
                          *([path] if command == "verify" else []))  # fmt: skip
    assert exit_code == 2
    assert is_harmless(text)
    assert "[bold]" in text
