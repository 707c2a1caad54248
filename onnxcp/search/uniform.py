"""Every site at the same multiple of its output channels.

Choose it for a baseline that one number describes ("rank 1.5 C").
"""

from fractions import Fraction
from functools import partial

from onnxcp.plan import Budget, Judge, Menu, Plan
from onnxcp.search.plan_family import Family, at_ranks, best_of


def uniform(menu: Menu, budget: Budget, judge: Judge) -> Plan:
    """The smallest multiple of the output channels, the same for all sites, within the budget."""
    return best_of(multiples(menu), menu, budget, judge)


def multiples(menu: Menu) -> Family:
    """One plan per ratio of rank to output channels among all candidates, largest first."""
    channels = {name: menu.originals[name].channels for name in menu.sites}
    ratios = {Fraction(c.choice.rank, channels[n]) for n, row in menu.sites.items() for c in row}
    return [partial(_at_multiple, menu, ratio) for ratio in sorted(ratios, reverse=True)]


def _at_multiple(menu: Menu, multiple: Fraction) -> Plan:
    return at_ranks(menu, {n: multiple * menu.originals[n].channels for n in menu.sites})
