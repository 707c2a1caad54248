"""What `import onnxcp` promises."""

import inspect
import subprocess
import sys
import typing

import pytest
from typer.main import get_command

import onnxcp
from onnxcp.cli import app

TERMINAL = {"json", "quiet", "verbose", "report", "export_times", "help", "help_all"}
COMMANDS = {name: c for name, c in get_command(app).commands.items() if hasattr(onnxcp, name)}


def keyword(parameter):
    """An option or an argument of a command as a keyword."""
    if parameter.param_type_name == "argument":
        return parameter.name
    return max(parameter.opts, key=len).removeprefix("--").replace("-", "_")


def options(command):
    """What a command takes, but for what is of the terminal alone; a call that writes no file of
    its own replaces none."""
    found = {keyword(parameter): parameter for parameter in command.params}
    files = set() if "output" in found else {"overwrite"}
    return {name: p for name, p in found.items() if name not in TERMINAL | files}


def test_every_public_name_is_there():
    for name in onnxcp.__all__:
        assert getattr(onnxcp, name).__module__.startswith("onnxcp.")


def test_no_other_name_is():
    assert not hasattr(onnxcp, "numpy")


def test_names_are_listed_before_they_are_used():
    code = "import onnxcp; print(*(n for n in onnxcp.__all__ if n not in dir(onnxcp)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.strip()) == (0, "")


def test_no_module_hides_a_verb():
    code = (
        "import pkgutil, importlib, onnxcp;"
        "[importlib.import_module(m.name) for m in pkgutil.walk_packages(onnxcp.__path__, "
        "'onnxcp.') if m.name.startswith(('onnxcp.api', 'onnxcp.optimization', 'onnxcp.cli'))];"
        "print(*(n for n in onnxcp.__all__ if n.islower() and not callable(getattr(onnxcp, n))))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.strip()) == (0, "")


def test_every_command_that_computes_has_a_verb():
    assert set(get_command(app).commands) - set(COMMANDS) == {"help"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_keywords_of_a_verb_are_the_options_of_its_command(name):
    parameters = inspect.signature(getattr(onnxcp, name)).parameters
    assert set(parameters) - {"progress"} == set(options(COMMANDS[name]))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_defaults_of_a_verb_are_those_of_its_command(name):
    parameters = inspect.signature(getattr(onnxcp, name)).parameters
    for keyword, option in options(COMMANDS[name]).items():
        ours, theirs = parameters[keyword].default, option.default
        if ours not in (None, inspect.Parameter.empty) and theirs is not None:
            same = list(ours) if isinstance(ours, tuple) else ours
            assert (same or None) == (theirs or None), keyword


@pytest.mark.parametrize("name", COMMANDS)
def test_the_types_of_a_verb_can_be_read(name):
    assert typing.get_type_hints(getattr(onnxcp, name))["return"].__name__.endswith("Result")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_documentation_of_a_verb_explains_every_keyword(name):
    function = getattr(onnxcp, name)
    for keyword in inspect.signature(function).parameters:
        assert f"{keyword}:" in function.__doc__ or f"{keyword}," in function.__doc__, keyword


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("optimize", "max_dorp", "max_drop"),
        ("inspect", "input_shapes", "input_shape"),
        ("verify", "rtoll", "rtol"),
        ("benchmark", "batches", "batch"),
        ("profile", "forms", "form"),
        ("doctor", "providers", "provider"),
    ],
)
def test_an_unknown_keyword_is_answered_with_the_nearest(name, wrong, right):
    with pytest.raises(TypeError, match=rf"{name}\(\) .* '{wrong}'; did you mean '{right}'\?"):
        getattr(onnxcp, name)(**{wrong: 1})
