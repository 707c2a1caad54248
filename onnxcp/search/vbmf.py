"""Ranks from the singular values of the kernels, times a common factor.

Choose it where ranks should follow from the weights alone, as in Kim et al. 2016
(arXiv:1511.06530), to compare with what was published so. A site starts at the larger rank
of its kernel's unfoldings (`evb`); the factor common to all sites is bisected against the
budget.
"""

from functools import partial

from onnxcp.plan import Budget, Judge, Menu, Plan
from onnxcp.search.evb import rank
from onnxcp.search.plan_family import at_ranks, best_of

LEAST = 1 / 4  # of a site's channels: the analytic rank of some kernels is uselessly small
FACTORS = [16 / 2 ** (step / 3) for step in range(19)]  # down to 1/4


def vbmf(menu: Menu, budget: Budget, judge: Judge) -> Plan:
    """Analytic variational Bayes ranks, all times one factor bisected against the budget."""
    start = {name: start_rank(menu, name) for name in menu.sites}
    family = [
        partial(at_ranks, menu, {n: r * factor for n, r in start.items()}) for factor in FACTORS
    ]
    return best_of(family, menu, budget, judge)


def start_rank(menu: Menu, site: str) -> float:
    """The larger rank of a site's spectra, but not under a quarter of its channels."""
    found = max((rank(spectrum) for spectrum in menu.spectra(site)), default=0)
    return max(found, LEAST * menu.originals[site].channels)
