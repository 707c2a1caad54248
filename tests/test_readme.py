"""The README and the pages of the manual: their commands run as they stand, and what they name
exists."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from functools import partial
from itertools import pairwise

import pytest
from typer.testing import CliRunner

import onnxcp
from onnxcp.cli import app
from onnxcp.data.preset_table import PRESETS
from onnxcp.forms import FORMS
from onnxcp.graph.pass_table import PASSES
from onnxcp.measure.metric_table import METRICS
from onnxcp.report import WRITERS
from onnxcp.search import STRATEGIES

pytestmark = pytest.mark.usefixtures("quiet")
ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "onnxcp/docs").glob("*.md"))]
TEXTS = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
README, ALL = TEXTS["README.md"], "\n".join(TEXTS.values())
BY_NAME = {"argvalues": TEXTS.items(), "ids": TEXTS}
SHOWN = re.compile(r"```sh\n(onnxcp .*?)```\n```text\n(.*?)```", re.DOTALL)
CODE_COLUMNS = 62  # of a terminal with 64: a command that is wrapped cannot be copied


def blocks(language, text=ALL):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(script):
    """Those of onnxcp, each on one line."""
    lines = script.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip().startswith("onnxcp ")]


def code_spans(text):
    """Inline code, each on one line."""
    spans = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [" ".join(span.split()) for span in spans]


COMMANDS = list(dict.fromkeys(c for block in blocks("sh") for c in commands(block)))
EXAMPLES = list(dict.fromkeys(blocks("python")))
SCRIPTS = sorted({span for span in code_spans(ALL) if "python tools/" in span})
(RECIPE,) = blocks("bash")
(WORKFLOW,) = blocks("yaml")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder like this one, with what is not in it yet."""
    shutil.copytree(ROOT / "models", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def works(command):
    ended = CliRunner().invoke(app, shlex.split(command)[1:])
    assert ended.exit_code == 0, f"{command}\n{ended.output}"
    return ended.stdout


def test_the_commands_work_in_their_order_and_print_what_the_readme_shows(checkout):
    assert len(COMMANDS) >= 7
    printed = {command: works(command) for command in COMMANDS}
    assert (checkout / "run.md").is_file()
    shown = [(commands(script)[0], text) for script, text in SHOWN.findall(README)]
    assert [command.split()[1] for command, _ in shown] == ["inspect", "optimize", "verify"]
    missing = [
        label for command, text in shown for label in labels(text) if label not in printed[command]
    ]
    assert not missing


def labels(output):
    """What lines of an output begin with, without what depends on the machine: figures, and
    which layers are kept."""
    lines = [line.strip() for line in output.splitlines() if not line.startswith(("kept ", "…"))]
    begins = [re.split(r"  +|: |\d", line)[0].strip() for line in lines]
    return [begin for begin in begins if begin]


def test_the_listing_that_the_readme_shows_is_exact():
    script, text = SHOWN.findall(README)[0]
    printed = iter(works(commands(script)[0]).splitlines())
    assert all(line in printed for line in text.splitlines() if line != "…")  # in this order


def test_the_python_examples_run(checkout, monkeypatch, capsys):
    kept = partial(onnxcp.optimize, cache=os.environ["ONNXCP_CACHE"])  # what the commands fitted
    monkeypatch.setattr(onnxcp, "optimize", kept)
    assert len(EXAMPLES) >= 6
    names = {}
    for example in EXAMPLES:
        exec(compile(example, "example", "exec"), names)
    assert (checkout / "from-python.onnx").is_file()
    assert "faster" in capsys.readouterr().out


@pytest.fixture
def based(checkout):
    """The same with the baseline that CI compares with."""
    works(next(command for command in COMMANDS if "base.json" in command))
    return checkout


STUB = """#!/bin/sh
echo "onnxcp $*" >> called.txt
test "$1" != "$FAILING"
"""


@pytest.mark.parametrize("failing", ["", "verify"])
def test_a_shell_calls_the_commands_of_the_recipe_until_one_fails(failing, tmp_path):
    stub = tmp_path / "onnxcp"
    stub.write_text(STUB)
    stub.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "FAILING": failing}
    ended = subprocess.run(["bash", "-c", RECIPE], env=environment, cwd=tmp_path)
    called = (tmp_path / "called.txt").read_text().splitlines()
    assert called == commands(RECIPE)[: len(called)]
    assert called[-1].split()[1] == (failing or "benchmark")
    assert (ended.returncode == 0) == (not failing)


@pytest.mark.slow
def test_the_recipe_for_ci_runs_in_a_shell(based):
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    ended = subprocess.run(["bash", "-c", RECIPE], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert {"fast.onnx", "run.json", "run.md", "now.json"} <= {p.name for p in based.iterdir()}


def test_the_workflow_runs_and_uploads_what_it_made(based):
    for command in commands(WORKFLOW):
        works(command)
    uploaded = WORKFLOW.split("path: |")[-1].split()
    assert all((based / name).is_file() for name in uploaded)


def test_the_recipe_and_the_workflow_do_the_same():
    assert set(commands(RECIPE)) - set(commands(WORKFLOW)) == {"onnxcp doctor"}


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:onnxcp|tools|tests|models)/[\w./-]+)`", ALL)))
)
def test_files_they_name_exist(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("name", "text"), **BY_NAME)
def test_links_lead_to_files(name, text):
    folder = ROOT if name == "README.md" else ROOT / "onnxcp/docs"
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert [t for t in targets if not (folder / t.partition("#")[0]).is_file()] == []


def test_the_readme_links_every_page():
    assert {f"onnxcp/docs/{name}" for name in TEXTS} - {"onnxcp/docs/README.md"} <= set(
        re.findall(r"\]\(([^)]+)\)", README)
    )


COMMANDS_HELP = (
    *("optimize", "inspect", "verify", "benchmark", "profile", "finetune", "doctor", "help"),
)


@pytest.fixture(scope="module")
def helps():
    """What every command's --help says."""
    return {command: run_help(command) for command in COMMANDS_HELP}


def run_help(*command):
    """What --help of a command says, or of the program."""
    return CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"}).output


def options(text):
    return set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text))


@pytest.mark.parametrize(("name", "text"), **BY_NAME)
def test_they_claim_no_option_the_commands_lack(name, text, helps):
    others = [span for span in re.findall(r"`[^`]+`", text) if re.search(r"tools/|pip ", span)]
    for span in others:
        text = text.replace(span, "")
    known = set().union(*map(options, helps.values()), options(run_help()))
    assert options(text) - known == set()


@pytest.mark.parametrize("command", sorted({s for s in code_spans(ALL) if "onnxcp " in s}))
def test_an_option_belongs_to_the_command_it_is_written_with(command, helps):
    words = command.split()
    name = next((word for word in words if word in helps), None)
    assert name is None or options(command) <= options(helps[name])


@pytest.mark.parametrize("command", SCRIPTS)
def test_scripts_they_name_take_the_options(command, helps):
    script, _, passed_on = command.partition(" -- ")
    (path,) = re.findall(r"tools/\S+\.py", script)
    source = (ROOT / path).read_text(encoding="utf-8")
    assert [option for option in options(script) if f'"{option}"' not in source] == []
    assert options(passed_on) <= options(helps["optimize"]) | options(helps["finetune"])


UNDESCRIBED = {"--help"}  # says itself what it is


@pytest.mark.parametrize("command", COMMANDS_HELP)
def test_every_option_of_a_command_is_described(command, helps):
    described = options(ALL)
    positive = {option.replace("--no-", "--", 1) for option in described}
    negative = {option.replace("--", "--no-", 1) for option in described}
    assert options(helps[command]) - described - positive - negative - UNDESCRIBED == set()


def first_cells(page):
    """Names in the first column of a page's tables."""
    cells = re.findall(r"^\|([^|]*)\|", TEXTS[page], re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([\w.-]+)[^`]*`", cell)}


@pytest.mark.parametrize(
    ("table", "page"),
    [
        (FORMS, "guide.md"),
        (STRATEGIES, "guide.md"),
        (METRICS, "data.md"),
        (PRESETS, "data.md"),
        (PASSES, "exact-passes.md"),
    ],
    ids=["forms", "strategies", "metrics", "presets", "passes"],
)
def test_every_row_of_a_table_is_described(table, page):
    assert {*table} <= first_cells(page)


def test_every_report_format_is_described():
    described = code_spans(TEXTS["guide.md"])
    assert [suffix for suffix in WRITERS if suffix not in described] == []


def test_every_command_is_described():
    assert {*COMMANDS_HELP} <= first_cells("guide.md")
    assert {command.callback.__name__ for command in app.registered_commands} == {*COMMANDS_HELP}


def test_every_package_is_described():
    packages = {path.parent.name for path in (ROOT / "onnxcp").glob("*/__init__.py")}
    assert packages <= first_cells("extending.md")


def test_every_extra_is_described():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {f"[{extra}]" for extra in project["optional-dependencies"]} <= {
        *re.findall(r"^\| `(\[\w+\])`", TEXTS["guide.md"], re.MULTILINE)
    }


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150
    assert len(README.split()) <= 1300


def test_the_readme_says_in_one_sentence_what_it_is_before_all_else():
    title, sentence, picture = re.split(r"\n\n", README)[:3]
    assert title == "# onnxcp"
    assert len(re.findall(r"[.!?](?:\s|$)", sentence)) == 1
    assert picture.startswith("![")


@pytest.mark.parametrize(("name", "text"), **BY_NAME)
def test_headings_are_levels_in_order(name, text):
    plain = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    levels = [len(marks) for marks in re.findall(r"^(#+) ", plain, re.MULTILINE)]
    assert levels[0] == 1
    assert 1 not in levels[1:]
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))


@pytest.mark.parametrize(("name", "text"), **BY_NAME)
def test_rows_of_a_table_have_as_many_cells_as_its_header(name, text):
    tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    widths = [{len(re.split(r"(?<!\\)\|", row)) for row in t.splitlines()} for t in tables]
    assert all(len(found) == 1 for found in widths)


@pytest.mark.parametrize(("name", "text"), list(TEXTS.items())[1:], ids=list(TEXTS)[1:])
def test_code_fits_a_narrow_terminal(name, text):
    lines = [line for block in blocks(r"\w*", text) for line in block.splitlines()]
    assert [line for line in lines if len(line) > CODE_COLUMNS] == []
