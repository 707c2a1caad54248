"""onnxcp's entries in a model's metadata: lists of names, and a seal (a hash) over all of them.

The seal detects changes by accident or by hand, but not by someone who computes a new one.
"""

import hashlib
import json
from collections.abc import Iterable

import onnx

OURS = "onnxcp."  # what our keys begin with
SEAL = "onnxcp.seal"  # the hash of our other entries


def listed(proto: onnx.ModelProto, key: str) -> tuple[str, ...]:
    """Names in an entry: a JSON list, or one per line, as former versions wrote it."""
    text = next((p.value for p in proto.metadata_props if p.key == key), "")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, list) and all(isinstance(name, str) for name in found):
        return tuple(found)
    return tuple(text.split("\n")) if text else ()


def noted(names: Iterable[str]) -> str:
    """Names as `listed` reads them, whatever characters they hold."""
    return json.dumps(list(names))


def seal(proto: onnx.ModelProto) -> None:
    """Store the hash of onnxcp's entries, in place."""
    entry = next((p for p in proto.metadata_props if p.key == SEAL), None)
    (entry or proto.metadata_props.add(key=SEAL)).value = _digest(proto)


def is_sealed(proto: onnx.ModelProto) -> bool | None:
    """Whether onnxcp's entries match their hash; None if there is none."""
    found = next((p.value for p in proto.metadata_props if p.key == SEAL), None)
    return None if found is None else found == _digest(proto)


def _digest(proto: onnx.ModelProto) -> str:
    entries = sorted((p.key, p.value) for p in proto.metadata_props if p.key.startswith(OURS))
    told = json.dumps([entry for entry in entries if entry[0] != SEAL])
    return hashlib.sha256(told.encode()).hexdigest()
