"""Damage to files, the same for the same seed: of their bytes, and of the fields they hold.

Fields of JSON are found by walking it, those of protocol buffers by reflection, arrays of .npz
and rows of CSV by reading them. A field is set to an odd value, deleted, doubled or swapped; half
of the changes to JSON keep its kind and stay near, so that they get past the checks of form.
"""

import copy
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Message

Rng = np.random.Generator
TEXTS = ("", "x", "input", "../../etc", "a\u2028b", "\x1b[2J", "\x00", "é" * 300, "<b>|`", "Conv")
ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 3, 2**31, 2**63, -(2**70), 1e308, -0.5, 1e-320),
    *(float("nan"), float("inf"), -float("inf"), [], {}, [[]], ["x"], {"x": 1}, [1, 2, 3], "1"),
    *TEXTS,
)
INTEGERS = (-1, 0, 1, 2, 3, 7, 13, 255, 2**31 - 1, -(2**31))
LONGS = (*INTEGERS, 2**31, 2**40, 2**63 - 1, -(2**63))
FLOATS = (0.0, -1.0, 1e38, -1e38, 1e-42, float("nan"), float("inf"), -float("inf"))


def damaged_bytes(data: bytes, rng: Rng) -> bytes:
    """Bits flipped, a part cut, doubled, zeroed or put in."""
    if not data:
        return bytes(rng.integers(0, 256, 5, dtype=np.uint8))
    kind, made = rng.integers(6), bytearray(data)
    start = int(rng.integers(len(data)))
    stop = min(len(data), start + int(rng.integers(1, 64)))
    if kind == 0:
        for place in rng.integers(0, len(data), rng.integers(1, 9)):
            made[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del made[start:]
    elif kind == 2:
        del made[start:stop]
    elif kind == 3:
        made[start:start] = made[start:stop]
    elif kind == 4:
        made[start:stop] = bytes(stop - start)
    else:
        made[start:start] = bytes(rng.integers(0, 256, rng.integers(1, 64), dtype=np.uint8))
    return bytes(made)


def damaged_json(data: bytes, rng: Rng) -> bytes:
    """One field changed, or up to three."""
    document = json.loads(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places = list(_places(document))
        if not places:
            return json.dumps(ODD[rng.integers(len(ODD))]).encode()
        holder, key = places[rng.integers(len(places))]
        _change(holder, key, places, rng)
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = range(len(value)) if isinstance(value, list) else list(value)
    for key in keys:
        yield value, key
        if isinstance(value[key], list | dict) and value[key]:
            yield from _places(value[key])


def _change(holder: Any, key: Any, places: list[tuple[Any, Any]], rng: Rng) -> None:
    if rng.random() < 0.5:
        holder[key] = _near(holder[key], places, rng)
        return
    kind = rng.integers(5)
    if kind < 2:
        holder[key] = copy.deepcopy(ODD[rng.integers(len(ODD))])
    elif kind == 2:
        del holder[key]
    elif kind == 3:
        other, name = places[rng.integers(len(places))]
        holder[key] = copy.deepcopy(other[name])
    elif isinstance(holder, dict):
        holder[TEXTS[rng.integers(len(TEXTS))]] = copy.deepcopy(holder[key])
    else:
        holder.append(copy.deepcopy(holder[key]))


def _near(value: Any, places: list[tuple[Any, Any]], rng: Rng) -> Any:
    """A value of the same kind: a number somewhat larger or smaller, else what another field of
    that kind holds."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return (value - 1, value + 1, 2 * value, -value, 100 * value)[rng.integers(5)]
    if isinstance(value, float):
        return value * float(rng.choice([0.0, -1.0, 0.01, 0.5, 0.999, 2.0, 100.0]))
    others = [holder[key] for holder, key in places if type(holder[key]) is type(value)]
    return copy.deepcopy(others[rng.integers(len(others))])


def damaged_model(data: bytes, rng: Rng) -> bytes:
    """One to three fields of an ONNX model changed."""
    model = onnx.load_from_string(data)
    for _ in range(rng.integers(1, 4)):
        messages = list(_messages(model))
        _change_message(messages[rng.integers(len(messages))], rng)
    return bytes(model.SerializeToString())


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in _repeated(field, value):
                yield from _messages(part)


def _is_repeated(field: Any) -> bool:
    return bool(field.is_repeated)


def _repeated(field: Any, value: Any) -> Any:
    return value if _is_repeated(field) else [value]


def _change_message(message: Message, rng: Rng) -> None:
    """A field that is set, mostly; else any."""
    present = [field for field, _ in message.ListFields()]
    known = present if present and rng.random() < 0.8 else message.DESCRIPTOR.fields
    field = known[rng.integers(len(known))]
    if rng.random() < 0.2:
        message.ClearField(field.name)
    elif _is_repeated(field):
        _change_list(getattr(message, field.name), field, rng)
    elif field.message_type is not None:
        part = getattr(message, field.name)
        part.SetInParent()
    else:
        setattr(message, field.name, _value(field, rng))


def _change_list(values: Any, field: Any, rng: Rng) -> None:
    place = int(rng.integers(len(values))) if len(values) else 0
    kind = rng.integers(4)
    if not len(values) or kind == 0:
        if field.message_type is not None:
            values.add()
        else:
            values.append(_value(field, rng))
    elif kind == 1:
        del values[place]
    elif kind == 2:
        values.append(copy.deepcopy(values[place]))
    elif field.message_type is None:
        values[place] = _value(field, rng)
    else:
        first = copy.deepcopy(values[0])
        values[0].CopyFrom(values[place])
        values[place].CopyFrom(first)


def _value(field: Any, rng: Rng) -> Any:
    def one(of: Any) -> Any:
        return of[rng.integers(len(of))]

    if field.enum_type is not None:
        return int(one(field.enum_type.values).number)
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return one(FLOATS)
    if field.cpp_type == field.CPPTYPE_INT64:
        return one(LONGS)
    if field.cpp_type == field.CPPTYPE_UINT64:
        return abs(one(LONGS))
    if field.cpp_type == field.CPPTYPE_INT32:
        return one(INTEGERS)
    if field.type == field.TYPE_BYTES:
        return bytes(rng.integers(0, 256, rng.integers(0, 40), dtype=np.uint8))
    return one(TEXTS)


def damaged_npz(data: bytes, rng: Rng) -> bytes:
    """An array changed: its name, type, shape or some of its values."""
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        arrays = dict(stored)
    for _ in range(rng.integers(1, 3)):
        name = list(arrays)[rng.integers(len(arrays))]
        changes = (_renamed, _retyped, _reshaped, _revalued)
        changes[rng.integers(len(changes))](arrays, name, rng)
    written = io.BytesIO()
    np.savez(written, **{n.replace("/", "_") or "_": a for n, a in arrays.items()})
    return written.getvalue()


def _renamed(arrays: dict[str, np.ndarray], name: str, rng: Rng) -> None:
    new = ("label", "labels", "input", "x", "é", "arr_0")[rng.integers(6)]
    arrays[new] = arrays[name] if rng.random() < 0.5 else arrays.pop(name)


def _retyped(arrays: dict[str, np.ndarray], name: str, rng: Rng) -> None:
    kinds = ("float16", "float64", "int8", "int64", "uint64", "bool", "complex64", "U3", "M8[s]")
    with np.errstate(all="ignore"):
        arrays[name] = arrays[name].astype("int64").astype(kinds[rng.integers(len(kinds))])


def _reshaped(arrays: dict[str, np.ndarray], name: str, rng: Rng) -> None:
    array = arrays[name]
    made: tuple[Callable[[], np.ndarray], ...] = (
        lambda: array.reshape(-1),
        lambda: array[..., None],
        lambda: array[:0],
        lambda: array[: len(array) // 2] if array.ndim else array,
        lambda: np.asarray(array.reshape(-1)[:1].sum()),
        lambda: array.T,
        lambda: array[None],
    )
    arrays[name] = np.ascontiguousarray(made[rng.integers(len(made))]() if array.ndim else array)


def _revalued(arrays: dict[str, np.ndarray], name: str, rng: Rng) -> None:
    array = arrays[name].copy()
    values = FLOATS if array.dtype.kind == "f" else (0, 1, 255, 127)
    if array.size and array.dtype.kind in "fiu":
        places = rng.integers(0, array.size, rng.integers(1, 4))
        with np.errstate(all="ignore"):
            array.reshape(-1)[places] = values[rng.integers(len(values))]
    arrays[name] = array


def damaged_table(data: bytes, rng: Rng) -> bytes:
    """A line of CSV deleted, doubled or with another value."""
    lines = data.decode().splitlines()
    place = int(rng.integers(len(lines)))
    kind = rng.integers(4)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(place, lines[rng.integers(len(lines))])
    else:
        cells = lines[place].split(",")
        cells[rng.integers(len(cells))] = str(ODD[rng.integers(len(ODD))])
        lines[place] = ",".join(cells)
    return "\n".join(lines).encode("utf-8", "surrogatepass")
