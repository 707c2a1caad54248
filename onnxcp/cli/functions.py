"""Metrics that the command line names as module:function."""

from onnxcp.data.named_function import named_function
from onnxcp.errors import UsageError
from onnxcp.measure.metrics import Metric

DIRECTIONS = {"higher": True, "lower": False}


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
