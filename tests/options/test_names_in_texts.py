"""Below the command line an option has a name and no flag: who prints a text says how it is
written."""

import ast
import inspect
import re
from pathlib import Path

import pytest

from onnxcp.cli import app
from onnxcp.errors import OPTION

PACKAGE = Path(__file__).parents[2] / "onnxcp"
FLAG = re.compile(r"(?<![\w-])--[a-z]")
FOREIGN = re.compile(r"pip install [^;]*|--gpus all")  # commands of others, whole
BELOW = [p for p in sorted(PACKAGE.rglob("*.py")) if p.parent.name != "cli"]


def texts(path):
    """Every text of a module, with the parts of f-strings joined by a value."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = node.values
            yield "".join(p.value if isinstance(p, ast.Constant) else "0" for p in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def known():
    """The options of all commands, by the names that they have in Python."""
    commands = [command.callback for command in app.registered_commands]
    return {name for callback in commands for name in inspect.signature(callback).parameters}


@pytest.mark.parametrize("path", BELOW, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_flag_stands_below_the_command_line(path):
    assert not [text for text in texts(path) if FLAG.search(FOREIGN.sub("", text))]


@pytest.mark.parametrize("path", BELOW, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_option_that_a_text_names_is_one_of_a_command(path):
    named = {m[1] for text in texts(path) for m in OPTION.finditer(text)} - {"0"}
    assert named <= known()
