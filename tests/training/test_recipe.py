"""Recipes of trainings in files."""

import json

import pytest

from onnxcp.errors import UsageError
from onnxcp.training.recipe import from_file


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


def test_a_file_of_a_run_without_a_loss_of_its_own_is_read(tmp_path):
    assert from_file(written(tmp_path, loss=None, epochs=3), {}).epochs == 3
