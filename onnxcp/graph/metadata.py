"""onnxcp's own entries in a model's metadata: lists of names, and a seal over all of them.

The seal tells a change by accident or by hand, not by someone who makes a new one.
"""

import hashlib
import json
from collections.abc import Iterable

import onnx

OURS = "onnxcp."  # what our keys begin with
SEAL = "onnxcp.seal"  # the hash of our other entries


def listed(proto: onnx.ModelProto, key: str) -> tuple[str, ...]:
    """Names in an entry: a JSON list, or, as versions before wrote it, one a line."""
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
    """Seal our entries as they are now."""
    entry = next((p for p in proto.metadata_props if p.key == SEAL), None)
    (entry or proto.metadata_props.add(key=SEAL)).value = _digest(proto)


def is_sealed(proto: onnx.ModelProto) -> bool | None:
    """Whether our entries are those that were sealed; None where there is no seal."""
    found = next((p.value for p in proto.metadata_props if p.key == SEAL), None)
    return None if found is None else found == _digest(proto)


def _digest(proto: onnx.ModelProto) -> str:
    entries = sorted((p.key, p.value) for p in proto.metadata_props if p.key.startswith(OURS))
    told = json.dumps([entry for entry in entries if entry[0] != SEAL])
    return hashlib.sha256(told.encode()).hexdigest()
