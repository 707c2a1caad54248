"""A plan of int8 leaves something for int8: with every layer in float it would be a float model.

Chains may stay in float where that is faster. Where that holds for every layer that int8 has
kernels for, one of them is looked at in int8 alone. All of them in float are not lost: that is
what the search in float, the rival of the one in int8, looks at.
"""

from collections.abc import Sequence
from dataclasses import replace

from onnxcp.graph.float_parts import CHAIN
from onnxcp.graph.operators import operator
from onnxcp.optimization.run import Run
from onnxcp.plan import Candidate, Menu
from onnxcp.quantization.fold import FUSED, folded
from onnxcp.quantization.precision import INT8, PRODUCTS


def some_in_int8(run: Run, menu: Menu) -> Menu:
    """The menu, of which no plan leaves all of the model in float where int8 is asked for: the
    layer for which that costs least has no candidates in float, or is not in it any more."""
    if run.settings.precision != INT8 or not _is_all_in_float_possible(run, menu):
        return menu
    cost = {name: _cost(menu, name) for name in menu.sites}
    spared = min(cost, key=lambda name: cost[name])
    sites = {**menu.sites, spared: _in_int8(menu.sites[spared])}
    return replace(menu, sites={name: found for name, found in sites.items() if found})


def _is_all_in_float_possible(run: Run, menu: Menu) -> bool:
    if not menu.sites or any(len(_in_int8(c)) == len(c) for c in menu.sites.values()):
        return False
    nodes = folded(run.model.proto, str(run.model.path)).graph.node
    products = {n.name.removesuffix(FUSED) for n in nodes if operator(n) in PRODUCTS}
    return products <= menu.sites.keys()


def _in_int8(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [c for c in candidates if c.choice.floats != CHAIN]


def _cost(menu: Menu, name: str) -> float:
    """Seconds that a layer takes longer where its fastest chain may not be in float."""
    times = [c.seconds for c in _in_int8(menu.sites[name])]
    return min([*times, menu.originals[name].seconds]) - min(c.seconds for c in menu.sites[name])
