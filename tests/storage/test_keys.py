"""Cache keys: everything a value depends on changes them, our own code above all."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from onnxcp.cluster import dask_client
from onnxcp.fitting import calibrate, task
from onnxcp.latency import shortcut_timing, tabulate
from onnxcp.optimization import scores
from onnxcp.storage.keys import PACKAGE, code_version, key

USERS = {
    "fit": task.CODE,
    "calibration": calibrate.CODE,
    "latency table": tabulate.CODE,
    "shortcuts": shortcut_timing.CODE,
    "judgement": scores.CODE,
    "workers": dask_client.FITTING_CODE,
}


@dataclass(frozen=True)
class Settings:
    name: str = "a"
    size: int = 1


@dataclass(frozen=True)
class Others:
    name: str = "a"
    size: int = 1


@pytest.mark.parametrize("code", USERS.values(), ids=USERS)
def test_an_edit_of_any_module_it_names_changes_the_key(code, tmp_path):
    package = tmp_path / "onnxcp"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    before = code_version.__wrapped__(code, package)
    for name in code:
        whole = package / name
        for source in sorted(whole.rglob("*.py")) or [whole.with_suffix(".py")]:
            text = source.read_text()
            source.write_text(text + "# edited\n")
            assert code_version.__wrapped__(code, package) != before, source
            source.write_text(text)
    assert code_version.__wrapped__(code, package) == before


def test_code_is_named_as_it_lies_in_the_package():
    with pytest.raises(ValueError, match="no package or module 'shapes'"):
        code_version(("shapes",))


VALUES = [
    {"a": 1},
    {"a": 2},
    {"a": 1.5},
    {"a": "1"},
    {"a": None},
    {"a": [1, 2]},
    {"a": [[1], 2]},
    {"a": {"b": 1}},
    {"a": Settings()},
    {"a": Settings(size=2)},
    {"a": Others()},
    {"a": Path("x")},
    {"b": 1},
]


def test_different_values_have_different_keys():
    made = {key("kind", (), values) for values in VALUES}
    assert len(made) == len(VALUES)


def test_equal_values_have_one_key_in_any_order():
    assert key("kind", (), {"a": 1, "b": (2, 3)}) == key("kind", (), {"b": [2, 3], "a": 1})


def test_arrays_count_by_content_type_and_shape():
    arrays = [np.zeros(4), np.zeros((2, 2)), np.zeros(4, np.float32), np.ones(4)]
    assert len({key("kind", (), {}, [array]) for array in arrays}) == len(arrays)


def test_the_kind_counts():
    assert key("one", (), {}) != key("other", (), {})


def test_a_value_without_a_plain_form_is_refused():
    with pytest.raises(TypeError, match="cannot hold a set"):
        key("kind", (), {"a": {1, 2}})
