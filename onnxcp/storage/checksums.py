"""Documents that know when they were damaged: JSON with the hash of its content."""

import hashlib
import json
from typing import Any

HASH = "sha256"


def digest(document: Any) -> str:
    """The hash of a JSON document, whatever the order of its keys."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """A document with its hash beside its fields."""
    plain = json.loads(json.dumps(document))
    return {**plain, HASH: digest(plain)}


def opened(document: Any) -> dict[str, Any]:
    """What was sealed.

    Raises:
        ValueError: it is no such document, or not as it was.
    """
    if not isinstance(document, dict):
        raise ValueError("no document with a hash")
    plain = {name: value for name, value in document.items() if name != HASH}
    if document.get(HASH) != digest(plain):
        raise ValueError("the content is not what its hash is of")
    return plain
