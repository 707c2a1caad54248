"""Seeds from names, so that random numbers do not depend on what else is computed, or when."""

import hashlib


def digits(text: str) -> tuple[int, ...]:
    """Four 32-bit numbers that a text stands for."""
    digest = hashlib.sha256(text.encode()).digest()
    return tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
