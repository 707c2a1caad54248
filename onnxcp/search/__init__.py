"""Strategies: which candidate for which site, judged against a budget.

A strategy sees a menu of numbers and a judge, never a runtime or a model. To add one:
a module with a function `(Menu, Budget, Judge) -> Plan`, and a row here, which is imported when
it is first used.

| strategy | choose it when | judgements |
|---|---|---|
| knapsack | there is no reason for another | 4–14 |
| bisect | predicted losses are not to be trusted, and time is no matter | some 10 a site |
| estimate | what the model stores matters as much as its time | 15–31 |
| vbmf | ranks should follow from the weights, as published | 5 |
| genetic | a night may be spent, and few sites lose together what none loses alone | up to 120 |
| uniform | a baseline is wanted that one number describes | 5–9 |

For a budget of time all but bisect and genetic need no judgement.
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
