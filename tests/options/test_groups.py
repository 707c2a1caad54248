"""Groups of options: what their fields say, and which values they refuse."""

from dataclasses import fields
from pathlib import Path

import pytest

from onnxcp.errors import UsageError
from onnxcp.options.budget import BudgetOptions, parse_drop
from onnxcp.options.data import DataOptions
from onnxcp.options.duration import DurationOptions
from onnxcp.options.fit import FitOptions
from onnxcp.options.option import build, options_of
from onnxcp.options.plan import PlanOptions, seconds
from onnxcp.options.run import RunOptions
from onnxcp.options.target import TargetOptions
from onnxcp.options.tolerance import ToleranceOptions
from onnxcp.options.training import RecipeOptions, TrainingOptions

GROUPS = (
    BudgetOptions,
    DataOptions,
    DurationOptions,
    FitOptions,
    PlanOptions,
    RunOptions,
    TargetOptions,
    ToleranceOptions,
    TrainingOptions,
)


@pytest.mark.parametrize("group", GROUPS)
def test_every_field_has_help(group):
    named = {option.name for option in options_of(group) if option.option.help}
    assert named == {field.name for field in fields(group)} - {"given"}


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_without_options_has_the_defaults(group):
    assert all(getattr(group(), o.name) == o.default for o in options_of(group))


def test_no_option_stands_in_two_groups_but_the_number_of_timed_runs():
    names = [option.name for group in GROUPS for option in options_of(group)]
    assert {name for name in names if names.count(name) > 1} == {"iterations"}


def test_a_group_takes_its_options_out_of_all():
    built = build(DataOptions, {"batch": 4, "max_drop": "1%"})
    assert built == DataOptions(batch=4)


def test_a_group_knows_which_options_were_given_though_they_are_the_defaults():
    built = build(TrainingOptions, {"epochs": RecipeOptions().epochs})
    assert built.given == {"epochs"}


def test_a_group_made_by_hand_was_given_what_differs_from_the_defaults():
    assert TrainingOptions(epochs=3, recipe=Path("r.json")).given == {"epochs", "recipe"}


@pytest.mark.parametrize(
    ("group", "values", "named"),
    [
        (DataOptions, {"samples": 0}, "samples=0"),
        (DataOptions, {"batch": -1}, "batch=-1"),
        (BudgetOptions, {"max_drop": "0.1", "max_error": 0.1}, "max_drop and max_error"),
        (BudgetOptions, {"max_error": 1.0}, "max_error=1.0"),
        (BudgetOptions, {"max_error": 0.1, "metric": "top1"}, "metric and output_name"),
        (BudgetOptions, {"max_drop": "-1"}, "max_drop='-1'"),
        (BudgetOptions, {"target_speedup": 1.0}, "target_speedup=1"),
        (PlanOptions, {"plan": Path("p"), "rank": ("*=4",)}, "plan and rank"),
        (PlanOptions, {"time_budget": "soon"}, "time_budget='soon'"),
        (TargetOptions, {"precision": "int4"}, "precision=int4"),
        (FitOptions, {"jobs": 0}, "jobs=0"),
        (FitOptions, {"jobs": 2, "cluster": "tcp://a:1"}, "jobs=2 and cluster=tcp://a:1"),
        (FitOptions, {"cache": Path("c"), "no_cache": True}, "cache=c and no_cache"),
        (FitOptions, {"fit_device": "tpu"}, "fit_device=tpu"),
        (FitOptions, {"fit_device": "cuda", "cluster": "tcp://a:1"}, "fit_device=cuda and cluster"),
        (RunOptions, {"resume": True}, "resume: needs the work_dir"),
        (DurationOptions, {"iterations": 7}, "iterations=7"),
        (DurationOptions, {"duration": -1.0}, "duration=-1"),
        (RecipeOptions, {"batch_size": 1}, "batch_size=1"),
        (RecipeOptions, {"optimizer": "lion"}, "optimizer=lion"),
        (RecipeOptions, {"augment": ("mix",), "label_weight": 1.0}, "augment=mix"),
    ],
)
def test_a_wrong_value_is_refused_by_the_option_s_name(group, values, named):
    with pytest.raises(UsageError) as caught:
        group(**values)
    assert str(caught.value).startswith(named)


@pytest.mark.parametrize(
    ("text", "drop"), [("0.01", (0.01, False)), ("1%", (0.01, True)), (0.02, (0.02, False))]
)
def test_a_drop_is_absolute_or_a_percentage(text, drop):
    assert parse_drop(text) == drop


@pytest.mark.parametrize(("text", "time"), [("90", 90), ("10m", 600), ("2h", 7200), (5, 5)])
def test_a_time_is_in_seconds_or_with_its_unit(text, time):
    assert seconds(text) == time
