"""Functions that the command line names as module:function: only here is such code imported."""

import importlib
from collections.abc import Callable
from typing import Any

from onnxcp.errors import UsageError
from onnxcp.metrics import Metric

DIRECTIONS = {"higher": True, "lower": False}


def named_function(option: str, module: str, name: str) -> Callable[..., Any]:
    """Raises UsageError where the module or the function is missing."""
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{option} {module}:{name}: {error}; write it as module:function, in a module that "
            "Python finds (PYTHONPATH)"
        ) from error
    if not callable(found):
        raise UsageError(f"{option} {module}:{name}: cannot be called; name a function")
    function: Callable[..., Any] = found
    return function


def metric_function(text: str) -> Metric:
    """The metric `module:function` or `module:function:lower`; without a direction that of the
    function's attribute `higher_is_better`, and higher is better where it has none.

    Raises:
        UsageError: there is no such function, or the direction is unknown.
    """
    module, name, *rest = text.split(":")
    if len(rest) > 1 or any(direction not in DIRECTIONS for direction in rest):
        raise UsageError(f"--metric {text}: write it as module:function or module:function:lower")
    function = named_function("--metric", module, name)
    is_higher = bool(getattr(function, "higher_is_better", True))
    return Metric(
        f"{module}:{name}",
        higher_is_better=DIRECTIONS[rest[0]] if rest else is_higher,
        function=function,
    )
