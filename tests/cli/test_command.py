"""The flags that a command has are the fields of its groups of options."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from onnxcp.cli import app
from onnxcp.cli.command import Only, command
from onnxcp.cli.flags import flag
from onnxcp.data.preset_table import PRESETS
from onnxcp.errors import UsageError
from onnxcp.forms import FORMS
from onnxcp.measure.metric_table import METRICS
from onnxcp.options.budget import BudgetOptions
from onnxcp.options.data import DataOptions
from onnxcp.options.fit import FitOptions
from onnxcp.options.option import options_of
from onnxcp.options.plan import PlanOptions
from onnxcp.options.run import RunOptions
from onnxcp.options.target import TargetOptions
from onnxcp.options.training import TrainingOptions
from onnxcp.report import WRITERS
from onnxcp.runtime.provider_table import PROVIDERS
from onnxcp.search import STRATEGIES

OF_OPTIMIZE = (DataOptions, BudgetOptions, PlanOptions, TargetOptions, FitOptions, RunOptions)
TABLES = {  # an option of each group that chooses from a table
    "form": (PlanOptions, FORMS),
    "strategy": (PlanOptions, STRATEGIES),
    "metric": (BudgetOptions, METRICS),
    "preprocess": (DataOptions, PRESETS),
    "provider": (TargetOptions, PROVIDERS),
}
IN_HELP = {**TABLES, "report": (RunOptions, WRITERS)}  # the shell completes the names of files


def made_of(kind):
    """A command with one parameter, and what it was called with."""
    calls = []

    def run(group: kind) -> None:
        calls.append(group)

    made = typer.Typer(add_completion=False)
    made.command()(command(run))
    return made, calls


def given(kind, *arguments):
    made, calls = made_of(kind)
    ended = CliRunner().invoke(made, list(arguments))
    assert ended.exit_code == 0, ended.output
    return calls[0]


def flags(kind):
    made, _ = made_of(kind)
    return {o for p in get_command(made).params for o in (*p.opts, *p.secondary_opts)}


@pytest.mark.parametrize("group", OF_OPTIMIZE)
def test_every_option_of_a_group_is_a_flag_of_optimize(group):
    (optimize,) = (c for n, c in get_command(app).commands.items() if n == "optimize")
    there = {o for p in optimize.params for o in p.opts}
    assert {flag(o.name) for o in options_of(group)} <= there


@pytest.mark.parametrize("group", [*OF_OPTIMIZE, TrainingOptions])
def test_without_flags_a_command_has_the_defaults_of_its_group(group):
    got = given(group)
    assert {o.name: getattr(got, o.name) for o in options_of(group)} == {
        o.name: o.default for o in options_of(group)
    }


def test_a_flag_sets_its_field():
    got = given(DataOptions, "--data", "a.npz", "--data", "b.npz", "--samples", "3")
    assert got == DataOptions(data=("a.npz", "b.npz"), samples=3)


def test_a_list_is_given_with_commas():
    assert given(TrainingOptions, "--augment", "flip, crop").augment == ("flip", "crop")


def test_a_group_knows_what_stands_on_the_command_line():
    assert given(TrainingOptions, "--epochs", "10").given == {"epochs"}


def test_only_some_options_of_a_group_are_flags_in_their_order():
    some = Annotated[FitOptions, Only("no_cache", "jobs")]
    assert flags(some) - {"--help"} == {"--no-cache", "--jobs"}
    assert given(some, "--jobs", "2") == FitOptions(jobs=2)


def test_a_switch_that_is_on_can_be_turned_off():
    assert given(FitOptions, "--no-bias-correction").bias_correction is False


def test_what_a_group_refuses_is_said_with_flags_in_one_line():
    made, _ = made_of(FitOptions)
    ended = CliRunner().invoke(made, ["--cache", "c", "--no-cache"])
    assert (ended.exit_code, ended.stderr) == (
        2,
        "error: --cache c and --no-cache exclude each other: give one\n",
    )


def test_what_a_command_raises_is_said_with_flags_in_one_line():
    @command
    def fails() -> None:
        raise UsageError("<<max_drop=7>>: too much")

    made = typer.Typer()
    made.command()(fails)
    ended = CliRunner().invoke(made, [])
    assert (ended.exit_code, ended.stderr) == (2, "error: --max-drop 7: too much\n")


@pytest.mark.parametrize("name", IN_HELP)
def test_a_row_that_is_added_to_a_table_is_in_the_help(name, monkeypatch):
    group, table = IN_HELP[name]
    monkeypatch.setitem(table, "another", "a.module.never:IMPORTED")
    made, _ = made_of(Annotated[group, Only(name)])
    ended = CliRunner().invoke(made, ["--help"], terminal_width=200)
    assert "another" in ended.output


@pytest.mark.parametrize("name", TABLES)
def test_a_row_that_is_added_to_a_table_is_completed(name, monkeypatch):
    group, table = TABLES[name]
    monkeypatch.setitem(table, "another", "a.module.never:IMPORTED")
    made, _ = made_of(Annotated[group, Only(name)])
    (option,) = (p for p in get_command(made).params if p.name == name)
    context = get_command(made).make_context("x", [])
    assert [c.value for c in option.shell_complete(context, "ano")] == ["another"]


def completed(words):
    """What bash is told for the last of some words."""
    asked = {"_ONNXCP_COMPLETE": "complete_bash", "COMP_WORDS": words}
    asked["COMP_CWORD"] = str(len(words.split(" ")) - 1)
    code = "import sys; sys.argv = ['onnxcp']; from onnxcp.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **asked},
        cwd=Path(__file__).parents[2],
    ).stdout.split()


def test_the_shell_completes_options_and_their_choices():
    assert completed("onnxcp optimize --max") == ["--max-drop", "--max-error"]
    assert completed("onnxcp optimize --form c") == ["cp3", "cp4"]
