"""Recipes of trainings in files."""

import json

import pytest

from onnxcp.errors import UsageError
from onnxcp.options.option import build
from onnxcp.options.run import RunOptions
from onnxcp.options.training import TrainingOptions
from onnxcp.training.recipe import asked_recipe, from_file, recipe_of


def written(tmp_path, **fields):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(fields))
    return path


def test_code_that_a_file_names_is_not_imported(tmp_path):
    with pytest.raises(UsageError, match=r"only the command line may name: pass loss"):
        from_file(written(tmp_path, loss="os:getcwd"), {})


@pytest.mark.parametrize("loss", [None, "mine:loss"])
def test_what_the_command_line_says_of_a_loss_counts(tmp_path, loss):
    assert from_file(written(tmp_path, loss="os:getcwd"), {"loss": loss}).loss == loss


def test_a_file_of_a_former_version_is_read_by_the_names_that_fields_had(tmp_path):
    path = written(tmp_path, batch=16, labels=0.5, features=30, train="all")
    made = from_file(path, {})
    assert (made.batch_size, made.label_weight, made.feature_weight, made.weights) == (
        16,
        0.5,
        30,
        "all",
    )


def test_what_is_given_beside_a_file_counts_though_it_is_the_default(tmp_path):
    options = build(TrainingOptions, {"recipe": written(tmp_path, epochs=3, seed=5), "epochs": 10})
    made = recipe_of(options, RunOptions())
    assert (made.epochs, made.seed) == (10, 5)


def test_a_seed_that_is_given_counts_instead_of_the_file_s(tmp_path):
    options = TrainingOptions(recipe=written(tmp_path, seed=5))
    assert recipe_of(options, build(RunOptions, {"seed": 0})).seed == 0


def test_options_of_a_training_go_with_one():
    with pytest.raises(UsageError, match="epochs=3: goes with finetune"):
        asked_recipe(TrainingOptions(epochs=3), RunOptions())


def test_a_file_of_a_run_without_a_loss_of_its_own_is_read(tmp_path):
    assert from_file(written(tmp_path, loss=None, epochs=3), {}).epochs == 3
