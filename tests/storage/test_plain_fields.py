"""Records come out of plain values only where every field is of its type."""

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pytest

from onnxcp.errors import MALFORMED, TableError
from onnxcp.latency.candidates import Latency, Measured
from onnxcp.latency.table import Check, Table, from_document, from_file, to_document, to_text
from onnxcp.measure.timing import Speedup
from onnxcp.plan import Choice
from onnxcp.storage.plain_fields import from_plain


@dataclass(frozen=True)
class Part:
    size: float
    name: str | None = None


@dataclass(frozen=True)
class Whole:
    count: int
    parts: tuple[Part, ...]
    pair: tuple[int, str]
    shapes: Mapping[str, tuple[int, ...]]
    is_new: bool = False


WHOLE = Whole(3, (Part(1.5, "a"), Part(2.0)), (1, "x"), {"y": (1, 2)}, True)
TABLE = Table(
    model="m.onnx",
    environment={"cpu": "x"},
    provider="cpu",
    options={},
    threads=1,
    shapes={"x": (1, 3)},
    forms=("svd",),
    total=2.0,
    rows={"k": Latency(1.0, (Measured(Choice("svd", 8), 0.5, Speedup(2.0, 1.9, 2.1)),))},
    checks=(Check(1.5, 1.6),),
)


def places(value, path=()):
    """Where every value of a document lies."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in items:
        yield (*path, key)
        if isinstance(part, dict | list):
            yield from places(part, (*path, key))


def with_value(document, path, value):
    changed = holder = copy.deepcopy(document)
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return changed


def test_what_became_plain_comes_back():
    assert from_plain(Whole, json.loads(json.dumps(asdict(WHOLE)))) == WHOLE


@pytest.mark.parametrize("path", list(places(json.loads(json.dumps(asdict(WHOLE))))), ids=str)
def test_a_value_of_another_type_is_refused_wherever_it_lies(path):
    document = with_value(json.loads(json.dumps(asdict(WHOLE))), path, {"z": [object()]})
    with pytest.raises(TypeError):
        from_plain(Whole, document)


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("inf"), 10**400])
def test_only_finite_numbers_are_numbers(value):
    with pytest.raises(MALFORMED):
        from_plain(Part, {"size": value})


def test_a_whole_number_is_taken_for_a_float():
    found = from_plain(Part, {"size": 2})
    assert (found.size, type(found.size)) == (2.0, float)


@pytest.mark.parametrize("document", [{}, {"size": 1.0, "other": 1}, [], None, "size"])
def test_missing_and_unknown_fields_are_refused(document):
    with pytest.raises(TypeError):
        from_plain(Part, document)


def test_a_latency_table_comes_back():
    assert from_document(json.loads(to_text(TABLE))) == TABLE


FREE = ("environment", "latency_version")  # read as they are, and by `from_file`


@pytest.mark.parametrize("value", ["text", {"a": 1}, [[]], True], ids=str)
def test_a_latency_table_of_which_one_value_is_of_another_type_is_refused(value):
    document = json.loads(to_text(TABLE))
    taken = []
    for path in places(document):
        if path[0] in FREE:
            continue
        try:
            from_document(with_value(document, path, value))
        except MALFORMED:
            continue
        taken.append(path)
    may_be_text = [("model",), ("rows", "k", "tried", 0, "choice", "form"), ("forms", 0)]
    may_be_text.append(("rows", "k", "busy"))
    may_be_text.append(("provider",))  # names no provider, and is refused where it is used
    assert sorted(map(str, taken)) == sorted(map(str, may_be_text if value == "text" else []))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("total",), 0.0),
        (("threads",), -1),
        (("checks", 0, "measured"), 0.0),
        (("rows", "k", "tried", 0, "choice", "rank"), -8),
        (("rows", "k", "tried", 0, "seconds"), -0.5),
        (("rows", "k", "tried", 0, "against", "low"), 3.0),
        (("rows", "k", "tried", 0, "against", "ratio"), 0.0),
    ],
    ids=str,
)
def test_a_latency_table_of_impossible_numbers_is_refused(path, value, tmp_path):
    file = tmp_path / "l.json"
    file.write_text(json.dumps(with_value(json.loads(json.dumps(to_document(TABLE))), path, value)))
    with pytest.raises(TableError, match="a damaged one"):
        from_file(file)
