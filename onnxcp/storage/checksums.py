"""JSON documents with a checksum of their content."""

import hashlib
import json
from typing import Any

HASH = "sha256"


def digest(document: Any) -> str:
    """The SHA-256 of a JSON document; the order of keys does not matter."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def with_checksum(document: dict[str, Any]) -> dict[str, Any]:
    """A copy of the document with its hash in the field `HASH`."""
    plain = json.loads(json.dumps(document))
    return {**plain, HASH: digest(plain)}


def verified(document: Any) -> dict[str, Any]:
    """The document that was given to `with_checksum`.

    Raises:
        ValueError: it has no hash, or its content does not match the hash.
    """
    if not isinstance(document, dict):
        raise ValueError("not a document with a checksum")
    plain = {name: value for name, value in document.items() if name != HASH}
    if document.get(HASH) != digest(plain):
        raise ValueError("the content does not match its checksum")
    return plain
