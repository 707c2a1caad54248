"""Provenance that is forged, one field at a time: nothing passes for checked."""

import hashlib
import json
from collections.abc import Callable

import onnx
import pytest
from typer.testing import CliRunner
from written import change_values, edited, model, tensor, verify, weight, write

from onnxcp.cli import app
from onnxcp.graph import metadata, provenance

NODES = (
    "[a] h = Conv <pads = [1,1,1,1]> (x, w) [bb] k = Conv <pads = [1,1,1,1]> (h, v) y = Relu (k)"
)
FORMS = {"a": "cp3", "bb": "cp3"}


@pytest.fixture
def pair(tmp_path):
    tensors = {"w": weight(4, 4, 3, 3), "v": weight(4, 4, 3, 3) * 0.9 + 0.01}
    reference = model(tmp_path / "m.onnx", NODES, tensors)
    return reference, write(reference, tmp_path / "c.onnx", FORMS)


def entry(proto: onnx.ModelProto, key: str) -> onnx.StringStringEntryProto:
    return next(p for p in proto.metadata_props if p.key == key)


def forged(key: str, change: Callable[[str], str], *, resealed: bool) -> Callable:
    def edit(proto: onnx.ModelProto) -> None:
        entry(proto, key).value = change(entry(proto, key).value)
        if resealed:
            metadata.seal(proto)

    return edit


def in_record(**changes: object) -> Callable[[str], str]:
    """The records with other fields in that of `a`; a field of None is taken out."""

    def change(text: str) -> str:
        rows = json.loads(text)
        row = {**rows["a"], **changes}
        rows["a"] = {k: v for k, v in row.items() if v is not None}
        return json.dumps(rows)

    return change


def stages(change: Callable[[list], list]) -> Callable[[str], str]:
    return lambda text: in_record(stages=change(json.loads(text)["a"]["stages"]))(text)


def renamed(text: str) -> str:
    rows = json.loads(text)
    return json.dumps({"a": rows["bb"], "bb": rows["a"]})


def more(text: str) -> str:
    rows = json.loads(text)
    return json.dumps({**rows, "ghost": rows["a"]})


SHA = hashlib.sha256(b"").hexdigest()
FIELDS: dict[str, tuple[str, Callable[[str], str], str]] = {
    "another form": ("chains", in_record(form="cp4"), "none of form cp4 at rank 4"),
    "no form": ("chains", in_record(form="cp9"), "none of form cp9"),
    "a larger rank": ("chains", in_record(rank=5), "none of form cp3 at rank 5"),
    "a smaller rank": ("chains", in_record(rank=3), "none of form cp3 at rank 3"),
    "a rank of millions": ("chains", in_record(rank=10**9), "at rank 1000000000"),
    "a rank below one": ("chains", in_record(rank=-4), "at rank -4"),
    "what stays in float": ("chains", in_record(floats="everything"), "'everything'"),
    "another kernel": ("chains", in_record(kernel=SHA), "a: its chain was fitted to another"),
    "a stage's hash": ("chains", stages(lambda s: [[s[0][0], SHA], *s[1:]]), "weights of stage"),
    "a stage's role": ("chains", stages(lambda s: [["x", s[0][1]], *s[1:]]), "its stages are"),
    "a stage less": ("chains", stages(lambda s: s[1:]), "its stages are"),
    "records swapped": ("chains", renamed, "weights of stage"),
    "a chain that is not there": ("chains", more, "ghost: the metadata describe"),
    "no list of sites": ("sites", lambda _: "[]", "is neither the reference's nor part"),
    "a site more": ("sites", lambda t: json.dumps([*json.loads(t), "c"]), "c: by the metadata"),
    "a site less": ("sites", lambda t: json.dumps(json.loads(t)[1:]), "'a/cp/inputs' is neither"),
    "another source": ("source_sha256", lambda _: SHA, "made of another model"),
    "no source": ("source_sha256", lambda _: "", "made of another model"),
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_forged_field_is_found_though_it_is_sealed_anew(pair, field):
    key, change, words = FIELDS[field]
    reference, candidate = pair
    edited(candidate, forged(f"onnxcp.{key}", change, resealed=True))
    code, text = verify(reference, candidate)
    assert code == 1
    assert words in text


@pytest.mark.parametrize("key", ["sites", "chains", "source_sha256", "seal"])
@pytest.mark.parametrize("how", ["longer", "gone"])
def test_any_entry_that_was_changed_breaks_the_seal(pair, key, how):
    reference, candidate = pair

    def change(proto):
        found = entry(proto, f"onnxcp.{key}")
        if how == "gone":
            proto.metadata_props.remove(found)
        else:
            found.value += " "

    edited(candidate, change)
    code, text = verify(reference, candidate)
    assert code == 1
    assert "changed afterwards" in text or how == "gone"


def test_an_entry_too_many_breaks_the_seal(pair):
    reference, candidate = pair
    edited(candidate, lambda proto: proto.metadata_props.add(key="onnxcp.trained", value="{}"))
    assert "changed afterwards" in verify(reference, candidate)[1]


def swap(proto: onnx.ModelProto) -> None:
    """Two chains, with their records, each in the place of the other."""
    for role in ("inputs", "window", "vertical", "horizontal", "outputs"):
        names = [f"{site}/cp/{role}.weight" for site in ("a", "bb")]
        if not any(t.name == names[0] for t in proto.graph.initializer):
            continue
        one, two = (onnx.numpy_helper.to_array(tensor(proto, n)).copy() for n in names)
        change_values(proto, names[0], lambda _, values=two: values)
        change_values(proto, names[1], lambda _, values=one: values)
    found = entry(proto, "onnxcp.chains")
    found.value = renamed(found.value)
    metadata.seal(proto)


def test_chains_swapped_with_their_records_are_found(pair):
    reference, candidate = pair
    before = onnx.load(candidate)
    edited(candidate, swap)
    assert onnx.load(candidate).graph != before.graph
    code, text = verify(reference, candidate)
    assert code == 1
    for site in ("a", "bb"):
        assert f"{site}: its chain was fitted to another kernel than the original's" in text


def trained(proto: onnx.ModelProto) -> None:
    """A weight of no chain changed, and said to be trained."""
    change_values(proto, "v", lambda values: values * 1.5)
    told = json.dumps({"v": provenance.content(tensor(proto, "v"))})
    proto.metadata_props.add(key="onnxcp.trained", value=told)
    metadata.seal(proto)


@pytest.fixture
def trained_pair(tmp_path):
    tensors = {"w": weight(4, 4, 3, 3), "v": weight(4, 4, 3, 3) * 0.9}
    reference = model(tmp_path / "m.onnx", NODES, tensors)
    return reference, edited(write(reference, tmp_path / "c.onnx", {"a": "cp3"}), trained)


def test_what_counts_as_trained_is_listed(trained_pair):
    code, text = verify(*trained_pair)
    assert code == 0
    assert "not checked: training changed 1 tensor of the original: v" in text


def test_what_counts_as_trained_is_no_checked_surgery(trained_pair):
    code, text = verify(*trained_pair, "--require-surgery")
    assert code == 1
    assert "FAILED surgery: not checked: training changed 1 tensor" in text


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"v": SHA}, "tensor 'v', read by 'bb', is not the reference's"),
        ({"ghost": SHA}, "ghost: by the metadata it was trained, but the original has no such"),
        ({}, "tensor 'v', read by 'bb', is not the reference's"),
    ],
)
def test_a_forged_note_of_training_is_found(trained_pair, told, words):
    reference, candidate = trained_pair
    edited(candidate, forged("onnxcp.trained", lambda _: json.dumps(told), resealed=True))
    code, text = verify(reference, candidate)
    assert code == 1
    assert words in text


def test_a_shortcut_that_never_was_is_found(pair):
    reference, candidate = pair

    def change(proto):
        proto.metadata_props.add(key="onnxcp.shortcuts", value='["s"]')
        metadata.seal(proto)

    edited(candidate, change)
    code, text = verify(reference, candidate)
    assert code == 1
    assert "s: by the metadata a shortcut became a convolution, but there was none" in text


def test_a_model_without_its_metadata_is_no_checked_surgery(pair):
    reference, candidate = pair
    edited(candidate, lambda proto: proto.ClearField("metadata_props"))
    assert verify(reference, candidate)[0] == 0
    code, text = verify(reference, candidate, "--require-surgery")
    assert code == 1
    assert "FAILED surgery: not checked: not written by onnxcp" in text


def test_honest_chains_pass_where_the_surgery_is_required(pair):
    assert verify(*pair, "--require-surgery")[0] == 0


def test_what_versions_before_wrote_passes(pair):
    """Lists one name a line, no seal, no kernels."""
    reference, candidate = pair

    def change(proto):
        entry(proto, "onnxcp.sites").value = "a\nbb"
        rows = json.loads(entry(proto, "onnxcp.chains").value)
        for row in rows.values():
            del row["kernel"]
        entry(proto, "onnxcp.chains").value = json.dumps(rows)
        proto.metadata_props.remove(entry(proto, metadata.SEAL))

    edited(candidate, change)
    code, text = verify(reference, candidate)
    assert (code, "2 chains, exact to rounding" in text) == (0, True)


@pytest.mark.parametrize("source", [SHA, "", None, 3])
def test_a_plan_of_another_model_is_refused(pair, tmp_path, source):
    reference, _ = pair
    plan = {
        "plan_version": 2,
        "source_sha256": source,
        "fits": {},
        "sites": {"a": {"form": "cp3", "rank": 4}},
    }
    (tmp_path / "p.plan.json").write_text(json.dumps(plan))
    words = ["optimize", reference, "-o", tmp_path / "o.onnx", "--plan", tmp_path / "p.plan.json"]
    ended = CliRunner().invoke(app, list(map(str, words)))
    assert ended.exit_code == 2
    assert "is a plan of another model" in " ".join(ended.stderr.split())
    assert not (tmp_path / "o.onnx").exists()
