"""Metrics of a user's own: a function, or one that is named as module:function."""

from collections.abc import Callable
from typing import Any

from onnxcp.data.named_function import named_function
from onnxcp.errors import UsageError
from onnxcp.measure.metrics import Metric

DIRECTIONS = {"higher": True, "lower": False}


def metric_of(given: str | Metric | Callable[..., Any] | None) -> str | Metric | None:
    """A metric's name, a row, or that of a function or module:function.

    Raises:
        UsageError: there is no such function, or its direction is unknown.
    """
    if isinstance(given, str):
        return _named(given) if ":" in given else given
    if given is None or isinstance(given, Metric):
        return given
    return _of_function(given, getattr(given, "__name__", type(given).__name__))


def _named(text: str) -> Metric:
    """The metric `module:function` or `module:function:lower`."""
    module, name, *rest = text.split(":")
    if len(rest) > 1 or any(direction not in DIRECTIONS for direction in rest):
        raise UsageError(f"<<metric={text}>>: write it as module:function or module:function:lower")
    function = named_function("metric", f"{module}:{name}")
    return _of_function(function, f"{module}:{name}", *(DIRECTIONS[d] for d in rest))


def _of_function(
    function: Callable[..., Any], name: str, higher_is_better: bool | None = None
) -> Metric:
    """Without a direction that of the function's attribute `higher_is_better`, and higher is
    better where it has none."""
    if higher_is_better is None:
        higher_is_better = bool(getattr(function, "higher_is_better", True))
    return Metric(name, higher_is_better=higher_is_better, function=function)
