"""The README's own commands, run as they stand."""

import pathlib
import re
import shlex
import shutil

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


def test_the_commands_work_in_their_order(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "models", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    assert len(COMMANDS) >= 4
    for command in COMMANDS:
        ended = CliRunner().invoke(app, shlex.split(command)[1:])
        assert ended.exit_code == 0, f"{command}\n{ended.output}"
    assert (tmp_path / "run.md").is_file()


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


COMMANDS_HELP = ("optimize", "inspect", "verify", "benchmark", "profile", "doctor")
