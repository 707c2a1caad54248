"""Exceptions that numpy and the standard library raise for damaged files of arrays or JSON."""

import tokenize
import zipfile
import zlib

DAMAGED = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, IndexError),
    *(RuntimeError, MemoryError, OverflowError),  # RecursionError and NotImplementedError too
    *(SyntaxError, tokenize.TokenError),  # of the header of an .npy file, which is Python
    *(zipfile.BadZipFile, zlib.error),
)
