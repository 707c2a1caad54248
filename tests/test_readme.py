"""The README's own commands, run as they stand."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from onnxcp.cli import app

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("onnxcp ")
]
(RECIPE,) = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
(WORKFLOW,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder like this one, with what is not in it yet."""
    shutil.copytree(ROOT / "models", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def works(command):
    ended = CliRunner().invoke(app, shlex.split(command)[1:])
    assert ended.exit_code == 0, f"{command}\n{ended.output}"


def test_the_commands_work_in_their_order(checkout):
    assert len(COMMANDS) >= 4
    for command in COMMANDS:
        works(command)
    assert (checkout / "run.md").is_file()


@pytest.fixture
def based(checkout):
    """The same with the baseline that CI compares with."""
    works(next(command for command in COMMANDS if "base.json" in command))
    return checkout


def test_the_recipe_for_ci_runs_in_a_shell(based):
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    ended = subprocess.run(["bash", "-c", RECIPE], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert {"fast.onnx", "run.json", "run.md", "now.json"} <= {p.name for p in based.iterdir()}


def test_the_workflow_runs_and_uploads_what_it_made(based):
    for command in re.findall(r"^ *(onnxcp .*)$", WORKFLOW, re.MULTILINE):
        works(command)
    uploaded = WORKFLOW.split("path: |")[-1].split()
    assert all((based / name).is_file() for name in uploaded)


def test_the_recipe_and_the_workflow_do_the_same():
    joined = RECIPE.replace("\\\n", "")
    said = {" ".join(line.split()) for line in joined.splitlines() if line.startswith("onnxcp ")}
    ran = set(re.findall(r"^ *(onnxcp .*)$", WORKFLOW, re.MULTILINE))
    assert said - ran == {"onnxcp doctor"}


@pytest.mark.parametrize("path", re.findall(r"`((?:onnxcp|tools|tests|models)/[\w./-]+)`", README))
def test_files_it_names_exist(path):
    assert (ROOT / path).exists()


def test_it_claims_no_option_the_commands_lack():
    ours = "".join(line for line in README.splitlines() if "tools/" not in line)
    options = set(re.findall(r"(--[a-z][a-z-]+)", ours))
    texts = [
        CliRunner().invoke(app, [c, "--help"], env={"COLUMNS": "200"}).output for c in COMMANDS_HELP
    ]
    assert not {option for option in options if not any(option in text for text in texts)}


COMMANDS_HELP = ("optimize", "inspect", "verify", "benchmark", "profile", "finetune", "doctor")
