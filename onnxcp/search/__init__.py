"""Rank strategies: which candidate each site gets, within a budget.

A strategy sees a menu of numbers and a judge, never a runtime or a model. To add one, write a
module with a function `(Menu, Budget, Judge) -> Plan`, and add a row here; the module is imported
when the strategy is first used.

| strategy | choose it if | evaluations |
|---|---|---|
| knapsack | there is no reason for another | 4–14 |
| bisect | predicted losses mislead, and search time does not matter | about 10 per site |
| estimate | the size of the model matters as much as its time | 15–31 |
| vbmf | ranks should follow from the weights alone, as published | 5 |
| genetic | predicted losses mislead, sites are few, and the search may take a night | up to 120 |
| uniform | you need a baseline that one number describes | 5–9 |

For a time budget, only bisect and genetic evaluate plans.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from onnxcp.options.table import Table

if TYPE_CHECKING:
    from onnxcp.plan import Budget, Judge, Menu, Plan

Strategy: TypeAlias = "Callable[[Menu, Budget, Judge], Plan]"

STRATEGIES: Table[Strategy] = Table(
    {
        "knapsack": "onnxcp.search.knapsack:knapsack",
        "bisect": "onnxcp.search.bisect:bisect",
        "estimate": "onnxcp.search.estimate:estimate",
        "vbmf": "onnxcp.search.vbmf:vbmf",
        "genetic": "onnxcp.search.genetic:genetic",
        "uniform": "onnxcp.search.uniform:uniform",
    }
)

__all__ = ["STRATEGIES", "Strategy"]
