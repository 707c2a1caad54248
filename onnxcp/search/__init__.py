"""Strategies: which candidate for which site, judged against a budget.

A strategy sees a menu of numbers and a judge, never a runtime or a model. To add one:
a module with a function `(Menu, Budget, Judge) -> Plan`, and a row here.
"""

from collections.abc import Callable

from onnxcp.plan import Budget, Judge, Menu, Plan
from onnxcp.search.bisect import bisect

Strategy = Callable[[Menu, Budget, Judge], Plan]

STRATEGIES: dict[str, Strategy] = {
    "bisect": bisect,
}

__all__ = ["STRATEGIES", "Strategy"]
