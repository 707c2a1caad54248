"""Ranks from the singular values of the kernels, times a common factor.

Choose it if ranks should follow from the weights alone, as in Kim et al. 2016 (arXiv:1511.06530),
for comparison with published results. A site starts at the larger EVB rank of its kernel's
unfoldings (`evb`); one factor for all sites is found by bisection.
"""

from functools import partial

from onnxcp.plan import Budget, Judge, Menu, Plan
from onnxcp.search.evb import rank
from onnxcp.search.plan_family import at_ranks, best_of

MIN_CHANNEL_SHARE = 1 / 4  # of a site's channels: the EVB rank of some kernels is far too small
FACTORS = [16 / 2 ** (step / 3) for step in range(19)]  # down to 1/4


def vbmf(menu: Menu, budget: Budget, judge: Judge) -> Plan:
    """Variational Bayes ranks, all times the smallest factor within the budget."""
    start = {name: start_rank(menu, name) for name in menu.sites}
    family = [
        partial(at_ranks, menu, {n: r * factor for n, r in start.items()}) for factor in FACTORS
    ]
    return best_of(family, menu, budget, judge)


def start_rank(menu: Menu, site: str) -> float:
    """The largest EVB rank of a site's spectra, but at least a quarter of its channels."""
    largest = max((rank(spectrum) for spectrum in menu.spectra(site)), default=0)
    return max(largest, MIN_CHANNEL_SHARE * menu.originals[site].channels)
