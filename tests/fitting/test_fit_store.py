"""Fits on disk: found again whole, or not at all."""

import os

import numpy as np
import pytest
from example_sites import site
from kept_fits import entry

from onnxcp.fitting import store
from onnxcp.fitting.fits import Fits
from onnxcp.fitting.rank_grid import knots
from onnxcp.forms import DRAFT
from onnxcp.plan import Choice
from onnxcp.storage import cache, keys


def key(text="settings", value=1.0):
    return keys.key("fit", (), {"text": text}, [np.full(3, value)])


def test_what_is_kept_is_found_again(tmp_path):
    store.save(tmp_path, key(), entry())
    found = store.load(tmp_path, key())
    assert (found.energies, found.seconds) == ((1.5, 2.5), 0.75)
    for one, two in zip(found.fits, entry().fits, strict=True):
        assert (one.form, one.error, one.outcome) == (two.form, two.error, two.outcome)
        for a, b in zip(one.factors, two.factors, strict=True):
            np.testing.assert_array_equal(a, b)


def test_everything_a_fit_depends_on_changes_the_key():
    other_shape = keys.key("fit", (), {"text": "settings"}, [np.ones((3, 1))])
    assert len({key(), key("other"), key(value=2.0), other_shape}) == 4
    assert key() == key()


def damaged(path):
    path.write_bytes(path.read_bytes()[:-40])


def flipped(path):
    bytes_ = bytearray(path.read_bytes())
    bytes_[len(bytes_) // 2] ^= 1
    path.write_bytes(bytes_)


def foreign(path):
    np.savez(path, about=np.array("{}"), other=np.ones(3))


def another_key(path):
    store.save(path.parents[1], key("other"), entry(1))
    cache.path_of(path.parents[1], key("other")).replace(path)


def no_numbers(path):
    path.write_text("not an archive")


def pickled(path):
    np.savez(path, about=np.array([{"key": key()}], dtype=object))


@pytest.mark.parametrize("harm", [damaged, flipped, foreign, another_key, no_numbers, pickled])
def test_an_entry_that_can_not_be_trusted_is_as_good_as_none(tmp_path, harm):
    store.save(tmp_path, key(), entry())
    (path,) = tmp_path.glob("??/*.npz")
    harm(path)
    assert store.load(tmp_path, key()) is None
    store.save(tmp_path, key(), entry())
    assert store.load(tmp_path, key()) is not None


def test_a_folder_that_can_not_be_written_to_costs_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    store.save(tmp_path / "file" / "below", key(), entry())
    assert store.load(tmp_path / "file" / "below", key()) is None


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    store.save(tmp_path, key(), entry())
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_the_entries_not_used_for_longest_go_first(tmp_path):
    keys = [key(str(number)) for number in range(3)]
    for text in keys:
        store.save(tmp_path, text, entry())
    size = cache.path_of(tmp_path, keys[0]).stat().st_size
    for age, text in enumerate(keys):
        os.utime(cache.path_of(tmp_path, text), (1000 - age, 1000 - age))
    store.load(tmp_path, keys[2])
    cache.prune(tmp_path, limit=2 * size)
    assert [store.load(tmp_path, text) is not None for text in keys] == [True, False, True]


def test_a_fit_is_computed_once_for_all_runs(tmp_path, monkeypatch):
    one = Fits({"a": site("a", (8, 8, 3, 3))}, 0, kept_in=tmp_path)
    made = one.get("a", Choice("cp3", 8))
    monkeypatch.setattr("onnxcp.fitting.task._computed", lambda task: pytest.fail("computed twice"))
    again = Fits({"a": site("a", (8, 8, 3, 3))}, 0, kept_in=tmp_path).get("a", Choice("cp3", 8))
    for a, b in zip(made.factors[0], again.factors[0], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("rank", "group", "around"),
    [
        (1, 1, (None, 16)),
        (16, 1, (None, 16)),
        (17, 1, (16, 32)),
        (64, 1, (32, 64)),
        (7, 3, (None, 48)),
    ],
)
def test_drafts_grow_from_powers_of_two(rank, group, around):
    assert knots(rank, group) == around


def test_a_draft_does_not_depend_on_what_was_asked_before():
    sites = {"a": site("a", (32, 32, 3, 3))}
    one, two = Fits(sites, 0), Fits(sites, 0)
    one.get("a", Choice("cp3", 96), DRAFT)
    first, second = (fits.get("a", Choice("cp3", 48), DRAFT) for fits in (one, two))
    for a, b in zip(first.factors[0], second.factors[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_error_of_a_draft_between_knots_is_between_theirs():
    fits = Fits({"a": site("a", (32, 32, 3, 3))}, 0)
    errors = [fits.error("a", Choice("cp3", rank), DRAFT) for rank in (32, 40, 48, 64)]
    assert errors == sorted(errors, reverse=True)
    assert errors[1] != errors[2]
