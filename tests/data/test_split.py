"""Which samples calibrate, search and judge."""

import numpy as np
import pytest

from onnxcp.data.roles import Sources, prepare
from onnxcp.data.split import MAX_CALIBRATION_SAMPLES, assign_roles, from_record
from onnxcp.errors import PlanError
from onnxcp.graph.input_specs import TensorSpec

SPEC = TensorSpec("x", np.dtype(np.float32), ("n", 4))
BOTH = {"calibrates": True, "searches": True}


@pytest.mark.parametrize("count", [3, 4, 5, 15, 16, 49, 50, 80, 999, 1000, 5000, 60000])
def test_every_sample_has_one_role_and_every_role_has_samples(count):
    roles = assign_roles(count, **BOTH)
    parts = [list(roles.calibration), list(roles.search), list(roles.evaluation)]
    assert sorted(n for part in parts for n in part) == list(range(count))
    assert all(parts)
    assert roles.is_held_out
    assert len(parts[0]) <= MAX_CALIBRATION_SAMPLES


@pytest.mark.parametrize("count", [2, 10, 1000])
def test_samples_that_calibrate_never_judge(count):
    for searches in (True, False):
        roles = assign_roles(count, calibrates=True, searches=searches)
        assert not set(roles.calibration) & {*roles.search, *roles.evaluation}


def test_data_with_calibration_of_its_own_all_search_or_judge():
    roles = assign_roles(30, calibrates=False, searches=True)
    assert not roles.calibration
    assert sorted((*roles.search, *roles.evaluation)) == list(range(30))


def test_without_a_search_all_that_do_not_calibrate_judge():
    roles = assign_roles(30, calibrates=True, searches=False)
    assert sorted((*roles.calibration, *roles.evaluation)) == list(range(30))
    assert roles.is_held_out


@pytest.mark.parametrize("count", [1, 2])
def test_samples_that_cannot_be_shared_out_are_said_to_do_several_things(count):
    roles = assign_roles(count, **BOTH)
    assert not roles.is_held_out
    assert roles.calibration
    assert list(roles.search) == list(roles.evaluation) != []


def test_sorted_classes_are_met_by_every_role():
    classes = np.repeat(np.arange(10), 30)
    roles = assign_roles(300, **BOTH)
    for part in (roles.calibration, roles.search, roles.evaluation):
        assert set(classes[list(part)]) == set(range(10))


def test_roles_come_back_from_their_record():
    roles = assign_roles(77, **BOTH)
    assert from_record(roles.record()) == roles


WHOLE = assign_roles(10, **BOTH).record()


@pytest.mark.parametrize(
    "record",
    [{}, {"count": 3}, {**WHOLE, "count": -1}, {**WHOLE, "more": 1}, {**WHOLE, "count": 1.5}],
)
def test_what_no_run_noted_is_refused(record):
    with pytest.raises(PlanError, match="roles"):
        from_record(record)


def prepared(folder, count, **options):
    values = np.arange(4 * count, dtype=np.float32).reshape(count, 4)
    np.savez(folder / "d.npz", x=values, label=np.arange(count))
    return prepare([SPEC], Sources(data=(f"{folder}/d.npz",), **options))


@pytest.mark.parametrize("count", [3, 20, 200])
def test_a_run_keeps_the_samples_that_judge_apart(tmp_path, count):
    inputs = prepared(tmp_path, count, hold_out=True)
    parts = [
        set(s.labels.tolist()) for s in (inputs.samples, inputs.search_samples, inputs.calibration)
    ]
    assert set.union(*parts) == set(range(count))
    assert sum(map(len, parts)) == count
    assert inputs.is_held_out


def test_roles_that_an_earlier_run_noted_are_kept(tmp_path):
    first = prepared(tmp_path, 40, hold_out=True)
    again = prepared(tmp_path, 40, roles=first.roles)
    assert again.samples.labels.tolist() == first.samples.labels.tolist()
    assert again.calibration.labels.tolist() == first.calibration.labels.tolist()


def test_roles_of_other_data_are_not_taken(tmp_path):
    first = prepared(tmp_path, 40, hold_out=True)
    other = prepared(tmp_path, 41, roles=first.roles)
    assert other.roles.count == 41
