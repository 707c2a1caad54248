"""What outlives a run: found as it was, or known to be damaged; and one run at a time in it."""

import json
import random

import numpy as np
import pytest
from kept_fits import entry

from onnxcp.cli.interruption import told
from onnxcp.errors import WorkError
from onnxcp.fitting import statistics_store, store
from onnxcp.fitting.statistics import Statistics, stored
from onnxcp.storage import cache, keys, workdir
from onnxcp.storage.checksums import verified, with_checksum

RNG = np.random.default_rng(0)


def flipped(path, seed):
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    place = random.Random(seed).randrange(8 * len(content))
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


def statistics(folder):
    covariances = [RNG.standard_normal((6, 6)).astype(np.float32) for _ in range(2)]
    paths, sha256 = stored(covariances, folder, "covariance-0")
    return {"w": Statistics(paths, sha256, {"conv": RNG.standard_normal((2, 6))}, (0.1, 0.2))}


def equal(one, two):
    same = one.keys() == two.keys()
    for name in one:
        a, b = one[name], two[name]
        same &= (a.sha256, a.shares, a.means.keys()) == (b.sha256, b.shares, b.means.keys())
        pairs = zip(a.covariances, b.covariances, strict=True)
        same &= all((np.load(x) == np.load(y)).all() for x, y in pairs)
        same &= all((a.means[site] == b.means[site]).all() for site in a.means)
    return same


def test_statistics_are_found_as_they_were(tmp_path):
    made = statistics(tmp_path)
    statistics_store.save_statistics(tmp_path, made)
    assert equal(statistics_store.load_statistics(tmp_path), made)


@pytest.mark.parametrize("name", ["covariance-0-1.npy", "means.npz", "statistics.json"])
def test_statistics_with_a_bit_flipped_are_measured_again_or_the_same(name, tmp_path):
    made = statistics(tmp_path)
    statistics_store.save_statistics(tmp_path, made)
    before, damaged = (tmp_path / name).read_bytes(), 0
    for seed in range(100):
        flipped(tmp_path / name, seed)
        found = statistics_store.load_statistics(tmp_path)
        (tmp_path / name).write_bytes(before)
        if found is None:
            damaged += 1
        else:  # a field of the archive that nothing is read from, as a date
            assert equal(found, made)
    assert damaged > 50


def test_notes_with_a_bit_flipped_are_as_good_as_none(tmp_path):
    note = {"before": 1.25, "rows": [1, 2, None], "name": "x"}
    key = keys.key("note", (), {})
    cache.save_note(tmp_path, key, note)
    (path,) = tmp_path.glob("??/*.json")
    before = path.read_bytes()
    assert cache.load_note(tmp_path, key) == note
    for seed in range(200):
        flipped(path, seed)
        assert cache.load_note(tmp_path, key) in (None, note)
        path.write_bytes(before)


def test_fits_with_a_bit_flipped_are_as_good_as_none(tmp_path):
    key, made = keys.key("fit", (), {}), entry()
    store.save(tmp_path, key, made)
    (path,) = tmp_path.glob("??/*.npz")
    before = path.read_bytes()
    for seed in range(300):
        flipped(path, seed)
        found = store.load(tmp_path, key)
        path.write_bytes(before)
        if found is not None:  # a field of the archive that nothing is read from, as a date
            assert repr(found) == repr(made)


@pytest.mark.parametrize("document", [None, [], {}, {"a": 1}, {"a": 1, "sha256": "0"}])
def test_what_has_no_valid_checksum_is_refused(document):
    with pytest.raises(ValueError, match="checksum"):
        verified(document)


def test_what_was_sealed_is_opened_whatever_the_order_of_its_keys():
    document = {"b": [1, 2.5, None], "a": {"x": float("inf")}}
    kept = json.loads(json.dumps(with_checksum(document)))
    assert verified(dict(reversed(kept.items()))) == document


def test_files_that_are_no_entries_are_never_pruned(tmp_path):
    mine = tmp_path / "ab" / "photo.jpg"
    mine.parent.mkdir()
    mine.write_bytes(bytes(1000))
    cache.prune(tmp_path, limit=0)
    assert mine.exists()


# --- the work folder


def test_a_work_folder_belongs_to_one_run_at_a_time(tmp_path):
    with (
        workdir.open_folder(tmp_path / "w", "sha", resume=False),
        pytest.raises(WorkError, match="another run uses it"),
        workdir.open_folder(tmp_path / "w", "sha", resume=True),
    ):
        pass
    with workdir.open_folder(tmp_path / "w", "sha", resume=True):
        pass


def test_a_folder_of_other_files_is_refused_without_a_trace(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with (
        pytest.raises(WorkError, match="not a work folder"),
        workdir.open_folder(tmp_path, "sha", resume=True),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_a_killed_run_left_half_written_in_a_work_folder_is_removed(tmp_path):
    with workdir.open_folder(tmp_path, "sha", resume=False):
        pass
    half = tmp_path / "kept" / "ab" / f".onnxcp-{16 * 'a'}.part"
    half.parent.mkdir(parents=True)
    half.write_text("half")
    with workdir.open_folder(tmp_path, "sha", resume=True):
        assert not half.exists()


# --- what is said of a run that is interrupted


def test_an_interruption_says_that_the_old_output_is_as_it_was(tmp_path):
    out = tmp_path / "o.onnx"
    out.write_text("old")
    assert told(out)() == f"interrupted; no output was written: {out} is as it was"


def test_an_interruption_says_what_had_been_written(tmp_path):
    out = tmp_path / "o.onnx"
    say = told(out)
    assert say() == "interrupted; no output was written"
    out.write_text("new")
    assert say() == f"interrupted after {out} had been written"


def test_an_interruption_says_how_to_go_on(tmp_path):
    work = tmp_path / "work"
    say = told(tmp_path / "o.onnx", (), work)
    assert "--resume" not in say()
    cache.save_note(work / "kept", keys.key("note", (), {}), 1)
    assert say().endswith(
        f"{work} holds 1 finished result: the same command with --resume goes on from there"
    )
