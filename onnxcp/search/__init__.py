"""Strategies: which candidate for which site, judged against a budget.

A strategy sees a menu of numbers and a judge, never a runtime or a model. To add one:
a module with a function `(Menu, Budget, Judge) -> Plan`, and a row here.

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

from onnxcp.plan import Budget, Judge, Menu, Plan
from onnxcp.search.bisect import bisect
from onnxcp.search.estimate import estimate
from onnxcp.search.genetic import genetic
from onnxcp.search.knapsack import knapsack
from onnxcp.search.uniform import uniform
from onnxcp.search.vbmf import vbmf

Strategy = Callable[[Menu, Budget, Judge], Plan]

STRATEGIES: dict[str, Strategy] = {
    "knapsack": knapsack,
    "bisect": bisect,
    "estimate": estimate,
    "vbmf": vbmf,
    "genetic": genetic,
    "uniform": uniform,
}

__all__ = ["STRATEGIES", "Strategy"]
