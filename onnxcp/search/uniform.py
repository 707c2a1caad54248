"""Every site at the same multiple of its output channels.

Choose it for a baseline that anyone can state in one number ("rank 1.5 C"), with which the
other strategies are compared.
"""

from fractions import Fraction
from functools import partial

from onnxcp.plan import Budget, Judge, Menu, Plan
from onnxcp.search.plan_family import Family, at_ranks, best_of


def uniform(menu: Menu, budget: Budget, judge: Judge) -> Plan:
    """One multiple of the output channels for all sites, bisected against the budget."""
    return best_of(multiples(menu), menu, budget, judge)


def multiples(menu: Menu) -> Family:
    """A plan for every multiple that some candidate's rank is of its site's channels."""
    channels = {name: menu.originals[name].channels for name in menu.sites}
    found = {Fraction(c.choice.rank, channels[n]) for n, row in menu.sites.items() for c in row}
    return [partial(_at_multiple, menu, multiple) for multiple in sorted(found, reverse=True)]


def _at_multiple(menu: Menu, multiple: Fraction) -> Plan:
    return at_ranks(menu, {n: multiple * menu.originals[n].channels for n in menu.sites})
