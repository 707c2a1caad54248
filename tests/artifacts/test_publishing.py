"""Files of a run take their places together, and killed at any step leave the old or the new."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxcp.artifacts import publishing
from onnxcp.artifacts.publishing import publish, recover
from onnxcp.artifacts.reservation import Reads, model_files, reserve
from onnxcp.errors import OutputError
from onnxcp.graph import io
from onnxcp.storage import atomic_write, temporary

posix = pytest.mark.skipif(os.name != "posix", reason="links and locks of POSIX")
OURS = {"onnxcp.version": "0"}


def proto(value, metadata=OURS):
    """A Conv whose weights all have one value."""
    made = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        "g (float[1,4,8,8] x) => (float[1,4,8,8] y) { y = Conv (x, w) }"
    )
    weight = np.full((4, 4, 1, 1), value, np.float32)
    made.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.helper.set_model_props(made, metadata)
    return made


def staged(folder, value, metadata=OURS):
    """A model with external data in a folder of its own."""
    folder.mkdir()
    io.save(proto(value, metadata), folder / "staged.onnx", frozenset({"w"}))
    return folder / "staged.onnx"


def value(path):
    """What the weights of a model are."""
    return float(onnx.numpy_helper.to_array(io.load(path).proto.graph.initializer[0]).mean())


def listing(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "m.onnx"


def test_data_are_called_after_the_model(tmp_path, out):
    publish({out.with_suffix(".plan.json"): "plan"}, [(staged(tmp_path / "s", 1), out)])
    assert listing(out.parent) == {"m.onnx", "m.onnx.data", "m.plan.json"}
    assert value(out) == 1


def test_what_is_replaced_is_replaced_whole_and_its_data_are_gone(tmp_path, out):
    for number in (1, 2, 3):
        made = staged(tmp_path / str(number), number)
        publish({out.with_suffix(".plan.json"): str(number)}, [(made, out)], overwrite=True)
        shutil.rmtree(made.parent)  # as the folder of a run is
        assert value(out) == number
        assert out.with_suffix(".plan.json").read_text() == str(number)
        assert len(listing(out.parent)) == 3


def test_the_same_model_again_is_the_same_files(tmp_path, out):
    publish({}, [(staged(tmp_path / "1", 1), out)])
    before = {path.name: path.read_bytes() for path in out.parent.iterdir()}
    publish({}, [(staged(tmp_path / "2", 1), out)], overwrite=True)
    assert {path.name: path.read_bytes() for path in out.parent.iterdir()} == before


STAY = {
    "of a copy": lambda out: out.with_name("copy.onnx").write_bytes(out.read_bytes()),
    "of a copy of another suffix": lambda out: out.with_name("x.bin").write_bytes(out.read_bytes()),
    "with a second name": lambda out: out.with_name("hard").hardlink_to(io.data_file(out)),
}


@posix
@pytest.mark.parametrize("use", STAY.values(), ids=STAY)
def test_old_data_stay_that_are_in_use(use, tmp_path, out):
    made = staged(tmp_path / "1", 1)
    publish({}, [(made, out)])
    shutil.rmtree(made.parent)
    use(out)
    before = io.data_file(out).read_bytes()
    publish({}, [(staged(tmp_path / "2", 2), out)], overwrite=True)
    assert io.data_file(out).read_bytes() == before
    assert value(out) == 2


def test_data_of_a_model_that_is_not_ours_stay(tmp_path, out):
    made = staged(tmp_path / "1", 1, {})
    publish({}, [(made, out)])
    shutil.rmtree(made.parent)
    publish({}, [(staged(tmp_path / "2", 2), out)], overwrite=True)
    assert io.data_file(out).exists()
    assert value(out) == 2


def test_a_file_in_place_of_the_data_is_never_replaced(tmp_path, out):
    io.data_file(out).write_text("mine")
    publish({}, [(staged(tmp_path / "1", 1), out)], overwrite=True)
    assert io.data_file(out).read_text() == "mine"
    assert value(out) == 1


def test_a_file_that_came_into_being_stays_and_nothing_is_written(tmp_path, out):
    plan = out.with_suffix(".plan.json")
    out.write_text("theirs")
    with pytest.raises(
        OutputError, match=r"m\.onnx: was created while this run worked;.* nothing was written"
    ):
        publish({plan: "plan"}, [(staged(tmp_path / "1", 1), out)])
    assert out.read_text() == "theirs"
    assert listing(out.parent) == {"m.onnx"}


def test_without_links_files_take_their_places_too(tmp_path, out, monkeypatch):
    monkeypatch.setattr(atomic_write, "hard_linked", lambda file, name: False)
    publish({out.with_suffix(".plan.json"): "1"}, [(staged(tmp_path / "1", 1), out)])
    publish({}, [(staged(tmp_path / "2", 2), out)], overwrite=True)
    assert value(out) == 2
    report = tmp_path / "r.md"
    with pytest.raises(OutputError, match="was created while this run worked"):
        publish({report: "3"}, [(staged(tmp_path / "3", 3), out)])
    assert value(out) == 2
    assert not report.exists()


def test_a_file_that_is_written_keeps_its_mode(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    path.chmod(0o640)
    atomic_write.write_text(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o640)


# --- killed

CHANGES = ("link", "unlink", "rename", "replace", "mkdir", "rmdir", "fsync")


def killed(last, work):
    """Whether a process of its own comes to the end of `work`, if it is killed before its call
    number `last` that changes a folder or sees a file to the disk."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        child = os.fork()
    if child == 0:
        _kill_before(last)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status == 0


def _kill_before(last):
    calls = []

    def counted(real):
        def wrapped(*given, **named):
            calls.append(1)
            if len(calls) == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given, **named)

        return wrapped

    for name in CHANGES:
        setattr(os, name, counted(getattr(os, name)))


def whole(out, report, *, new):
    texts = {out.with_suffix(".plan.json").read_text(), report.read_text()}
    return texts == {"new"} and value(out) == 2 if new else texts == {"old"} and value(out) == 1


@posix
@pytest.mark.parametrize("how", ["overwrite", "fresh"])
def test_killed_at_any_step_leaves_the_old_or_the_new_and_the_next_run_nothing_else(how, tmp_path):
    made, last, ends = staged(tmp_path / "new", 2), 0, set()
    while True:
        last += 1
        out, report = tmp_path / str(last) / "out" / "m.onnx", tmp_path / str(last) / "report/r.md"
        out.parent.mkdir(parents=True)
        report.parent.mkdir()
        if how == "overwrite":
            old = staged(tmp_path / f"old{last}", 1)
            publish({out.with_suffix(".plan.json"): "old", report: "old"}, [(old, out)])
            shutil.rmtree(old.parent)
        texts = {out.with_suffix(".plan.json"): "new", report: "new"}
        work = partial(publish, texts, [(made, out)], overwrite=how == "overwrite")
        ended = killed(last, work)
        if out.exists():
            assert value(out) in (1, 2), "a model that loads, at any moment"
        recover([out.parent, report.parent])
        names = {p.name for folder in (out.parent, report.parent) for p in folder.iterdir()}
        if how == "fresh" and not out.exists():
            assert not names
            ends.add("nothing")
        else:
            is_new = value(out) == 2
            assert whole(out, report, new=is_new)
            assert len(names) == 4
            ends.add(is_new)
        if ended:
            break
    assert ends == ({True, False} if how == "overwrite" else {True, "nothing"})
    assert last > 20


# --- temporary


@posix
def test_what_a_dead_process_left_is_swept_and_what_a_living_one_has_is_not(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from onnxcp.storage import temporary\n"
        "with temporary.folder(Path(sys.argv[1])) as f, temporary.file(Path(sys.argv[1])):\n"
        "    (f / 'x').write_text('x'); print('made', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        temporary.sweep(tmp_path)
        assert len(listing(tmp_path)) == 2
    finally:
        process.kill()
        process.communicate()
    temporary.sweep(tmp_path)
    assert not listing(tmp_path)


@posix
def test_names_that_are_like_ours_are_not_swept(tmp_path):
    for name in (".onnxcp-data", "onnxcp-0123456789abcdef", ".onnxcp-0123456789abcdeg.tmp"):
        (tmp_path / name).mkdir()
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / f".onnxcp-{16 * '0'}.tmp").symlink_to(real)
    temporary.sweep(tmp_path)
    assert len(listing(tmp_path)) == 5


# --- reserved before any work


def odd(kind, path):
    if kind == "a symbolic link":
        path.with_name("real").write_text("mine")
        path.symlink_to("real")
    elif kind == "a dangling link":
        path.symlink_to("nothing")
    elif kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(str(path))
    else:
        path.mkdir()


@posix
@pytest.mark.parametrize(
    "kind", ["a symbolic link", "a dangling link", "a FIFO", "a socket", "a folder"]
)
@pytest.mark.parametrize("number", [0, 1])
def test_what_is_no_plain_file_is_not_replaced(kind, number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path = model_files(Path("m.onnx"))[number]
    odd(kind, path)
    before = path.lstat()
    words = kind.replace("dangling", "symbolic")
    with pytest.raises(OutputError, match=f"{path}: is {words}"):
        reserve(model_files(Path("m.onnx")), Reads(), overwrite=True)
    assert os.path.samestat(path.lstat(), before)


def external_model(folder):
    """A model whose weights lie in a file `weights`."""
    made = proto(1)
    onnx.save_model(
        made, folder / "in.onnx", save_as_external_data=True, size_threshold=0, location="weights"
    )
    return folder / "in.onnx"


def read_files(folder):
    """Every kind of file that a run reads, and how it is told of it."""
    images = folder / "images" / "class"
    images.mkdir(parents=True)
    for file in (images / "a.png", folder / "d.npz", folder / "r.json", folder / "labels.csv"):
        file.write_text("mine")
    model = external_model(folder)
    reads = Reads(
        (model,), (f"{folder}/d.npz[:4]", str(folder / "images")), (folder / "r.json", "none")
    )
    names = ("in.onnx", "weights", "d.npz", "r.json")
    return reads, [*(folder / name for name in names), images / "a.png"]


@posix
@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("how", ["itself", "a hard link", "read through a link"])
def test_a_file_that_is_read_is_not_replaced(how, place, number, tmp_path):
    reads, read = read_files(tmp_path)
    outputs = list(model_files(tmp_path / "o.onnx"))
    outputs[place] = read[number]
    if how == "a hard link":
        outputs[place] = tmp_path / "second"
        outputs[place].hardlink_to(read[number])
    if how == "read through a link":
        real = read[number].rename(tmp_path / "real")
        read[number].symlink_to(real)
        outputs[place] = real
    with pytest.raises(OutputError, match=r"this run reads that file.*; choose another name"):
        reserve(outputs, reads, overwrite=True)


def test_two_outputs_are_two_files(tmp_path):
    (tmp_path / "sub").mkdir()
    twice = [tmp_path / "r.json", tmp_path / "sub" / ".." / "r.json"]
    with pytest.raises(OutputError, match="writes that file already"):
        reserve(twice, Reads())


def test_a_place_that_is_free_is_left_as_it_was(tmp_path):
    reserve(model_files(tmp_path / "o.onnx"), Reads())
    assert not listing(tmp_path)


def test_the_record_of_a_run_says_where_its_files_belong(tmp_path, out, monkeypatch):
    """What a later run needs to take them back."""
    seen = []
    monkeypatch.setattr(
        publishing,
        "_put",
        lambda place: seen.append(
            json.loads((Path(place.staged).parent / "places.json").read_text())
        ),
    )
    publish({out.with_suffix(".plan.json"): "p"}, [(staged(tmp_path / "1", 1), out)])
    names = [Path(place["target"]).name for place in seen[0]["places"]]
    assert names == ["m.plan.json", "m.onnx.data", "m.onnx"]
