"""Functions that a user names as `module:function`; importing them runs the user's code."""

import importlib
from collections.abc import Callable
from typing import Any

from onnxcp.errors import UsageError


def named_function(option: str, text: str) -> Callable[..., Any]:
    """Import the function that an option names as `module:function`.

    Raises:
        UsageError: it does not exist, cannot be called, or its module fails to import.
    """
    module, _, name = text.partition(":")
    try:
        attribute = getattr(importlib.import_module(module), name)
    except Exception as error:  # importing runs a user's code, which can raise anything
        raise UsageError(
            f"<<{option}={text}>>: {error}; write it as module:function, with a module that Python "
            "finds (PYTHONPATH)"
        ) from error
    if not callable(attribute):
        raise UsageError(f"<<{option}={text}>>: cannot be called; name a function")
    function: Callable[..., Any] = attribute
    return function
