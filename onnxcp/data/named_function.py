"""Functions that a user names as module:function; importing them runs the user's code."""

import importlib
from collections.abc import Callable
from typing import Any

from onnxcp.errors import UsageError


def named_function(option: str, text: str) -> Callable[..., Any]:
    """The function of an option's `module:function`.

    Raises:
        UsageError: there is none, or its module fails.
    """
    module, _, name = text.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # importing runs a user's code, which raises what it likes
        raise UsageError(
            f"{option} {text}: {error}; write it as module:function, in a module that Python "
            "finds (PYTHONPATH)"
        ) from error
    if not callable(found):
        raise UsageError(f"{option} {text}: cannot be called; name a function")
    function: Callable[..., Any] = found
    return function
