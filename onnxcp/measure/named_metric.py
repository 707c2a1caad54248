"""Metrics of a user: a function, or its name as module:function."""

from collections.abc import Callable
from typing import Any

from onnxcp.data.named_function import named_function
from onnxcp.errors import UsageError
from onnxcp.measure.metrics import Metric

DIRECTIONS = {"higher": True, "lower": False}


def metric_of(given: str | Callable[..., Any] | None) -> str | Metric | None:
    """The metric that an option asks for: the name of a row of `METRICS`, or the user's own.

    Raises:
        UsageError: a module:function that is not there.
    """
    if callable(given):
        is_higher = bool(getattr(given, "higher_is_better", True))
        name = getattr(given, "__name__", type(given).__name__)
        return Metric(name, higher_is_better=is_higher, function=given)
    return given if given is None or ":" not in given else metric_function(given)


def metric_function(text: str) -> Metric:
    """The metric `module:function` or `module:function:lower`; without a direction that of the
    function's attribute `higher_is_better`, and higher is better where it has none.

    Raises:
        UsageError: there is no such function, or the direction is unknown.
    """
    module, name, *rest = text.split(":")
    if len(rest) > 1 or any(direction not in DIRECTIONS for direction in rest):
        raise UsageError(f"--metric {text}: write it as module:function or module:function:lower")
    function = named_function("--metric", f"{module}:{name}")
    is_higher = bool(getattr(function, "higher_is_better", True))
    return Metric(
        f"{module}:{name}",
        higher_is_better=DIRECTIONS[rest[0]] if rest else is_higher,
        function=function,
    )
