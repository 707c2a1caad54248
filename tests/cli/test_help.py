"""`onnxcp help`: the pages of the manual on a terminal and elsewhere."""

import os
import pathlib
import pty
import re
import subprocess
import sys
import tomllib

import pytest
from typer.testing import CliRunner

from onnxcp.cli import app
from onnxcp.cli.help import summary, topics

ROOT = pathlib.Path(__file__).parents[2]
TOPICS = {
    "exact-passes",
    *("api", "benchmarks", "ci", "data", "extending", "faq", "fine-tuning", "guide"),
    *("how-it-works", "int8", "providers"),
}
HEAVY = ("numpy", "onnx", "onnxruntime", "scipy", "torch", "PIL", "tensorly")
ANSI = re.compile(r"\x1b\[[0-9;]*m")
NARROWEST, WIDEST = 64, 120  # columns


def run(*arguments):
    return CliRunner().invoke(app, ["help", *arguments])


def test_there_is_a_page_for_every_topic():
    assert set(topics()) == TOPICS


def test_without_a_topic_each_has_one_line():
    ended = run()
    assert ended.exit_code == 0
    for topic, page in topics().items():
        (line,) = [line for line in ended.stdout.splitlines() if line.startswith(f"{topic} ")]
        assert line.split(maxsplit=1)[1] == summary(page)
        assert len(line) <= NARROWEST


@pytest.mark.parametrize("topic", sorted(TOPICS))
def test_a_page_is_plain_where_there_is_no_terminal(topic):
    ended = run(topic)
    assert ended.exit_code == 0
    assert "\x1b" not in ended.stdout
    assert ended.stdout.startswith("# ")
    assert ended.stdout.splitlines()[0] == topics()[topic].splitlines()[0]


@pytest.mark.parametrize("topic", sorted(TOPICS))
def test_a_page_says_which_command_shows_another(topic):
    linked = set(re.findall(r"\]\(([a-z0-9-]+)\.md", topics()[topic]))
    text = run(topic).stdout
    assert ".md)" not in text
    assert linked <= set(re.findall(r"`onnxcp help ([a-z0-9-]+)`", text))


@pytest.mark.parametrize(
    ("asked", "near"),
    [("dta", "data"), ("INT8", "int8"), ("finetuning", "fine-tuning"), ("provider", "providers")],
)
def test_an_unknown_topic_is_wrong_use_and_the_near_one_is_named(asked, near):
    ended = run(asked)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert f"did you mean {near}?" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["optimize", "benchmark", "finetune"])
def test_who_asks_for_a_command_learns_where_its_help_is(command):
    ended = run(command)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert f"see onnxcp {command} --help" in ended.stderr


def test_a_topic_like_no_other_is_answered_with_all():
    ended = run("zzzzzz")
    assert ended.exit_code == 2
    assert "did you mean" not in ended.stderr
    assert all(topic in ended.stderr for topic in TOPICS)


def on_a_terminal(columns, *arguments):
    """What a command prints on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "onnxcp", *arguments]
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen(command, stdout=theirs, env=environment, cwd=ROOT) as process:
        os.close(theirs)
        chunks = []
        while chunk := _read(ours):
            chunks.append(chunk)
    os.close(ours)
    assert process.returncode == 0
    return b"".join(chunks).decode().replace("\r\n", "\n")


def _read(descriptor):
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # Linux's way to say that the other side has closed it
        return b""


@pytest.mark.parametrize("columns", [NARROWEST, 80, WIDEST])
@pytest.mark.parametrize("topic", ["data", "benchmarks"])
def test_a_terminal_shows_a_rendered_page_that_fits(topic, columns):
    text = ANSI.sub("", shown := on_a_terminal(columns, "help", topic))
    assert text != shown
    assert not [line for line in text.splitlines() if len(line.rstrip()) > columns]
    assert "|---" not in text
    assert "**" not in text
    assert "## " not in text


def test_every_cell_of_a_table_too_wide_is_still_shown():
    page = topics()["benchmarks"]
    rows = [line for line in page.splitlines() if line.startswith("| ResNet-20, CIFAR-10 |")]
    assert rows
    text = "".join(ANSI.sub("", on_a_terminal(NARROWEST, "help", "benchmarks")).split())
    cells = [cell for row in rows for cell in row.strip("|").split("|")]
    assert all("".join(cell.replace("*", "").split()) in text for cell in cells)


def test_no_heavy_package_is_imported():
    code = "import sys; from onnxcp.cli import main; sys.argv[1:] = ['help', 'data']; main()"
    listing = f"import atexit, sys; atexit.register(lambda: print(*sys.modules)); {code}"
    ended = subprocess.run(
        [sys.executable, "-c", listing], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = ended.stdout.splitlines()[-1].split()
    assert "onnxcp.cli.help" in loaded
    assert not {*HEAVY} & {*loaded}


def test_pages_ship_with_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["onnxcp"]
    shipped = {path.stem for pattern in patterns for path in (ROOT / "onnxcp").glob(pattern)}
    assert shipped >= TOPICS
