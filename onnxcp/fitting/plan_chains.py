"""The chains of a plan as a value: for each layer its chain, and the fit behind it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnxcp.arrays import Float
from onnxcp.chain import Chain, Kernel, with_bias
from onnxcp.errors import PlanError
from onnxcp.fitting.task import Aim, Fitted
from onnxcp.forms import FORMS
from onnxcp.forms.grouped import chain, reconstructed
from onnxcp.forms.solvers.norm import flat
from onnxcp.graph.sites import Site
from onnxcp.plan import Choice, Plan

Means = tuple[Float[np.ndarray, " T"], Float[np.ndarray, "group KS"]]
"""The mean output that a bias has to lead to, and the mean patches that the chain reads."""


@dataclass(frozen=True, slots=True, eq=False)
class Refit:
    """A new target for a fit; for the bias, the mean output [T] and mean patches [group, K·S]."""

    aim: Aim
    outputs: np.ndarray
    means: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Chains:
    """The chains of a plan and their fits, by site.

    `refits` are the sites that were fitted to their inputs in the rewritten model.
    """

    plan: Plan
    by_site: Mapping[str, Chain]
    fits: Mapping[str, Fitted]
    refits: frozenset[str] = frozenset()

    def refitted(self, name: str, chain: Chain, fitted: Fitted) -> "Chains":
        """The same with another chain for one site."""
        by_site, fits = {**self.by_site, name: chain}, {**self.fits, name: fitted}
        return replace(self, by_site=by_site, fits=fits, refits=self.refits | {name})


NO_CHAINS = Chains(Plan(), {}, {})


def chain_of(site: Site, choice: Choice, fitted: Fitted, means: Means | None) -> Chain:
    """A site's chain, without a bias, or with one that gives the desired mean output.

    Raises:
        PlanError: the fit is not usable.
    """
    if not fitted.outcome.is_usable:
        raise PlanError(f"{site.name}: {choice.form} at rank {choice.rank} {fitted.outcome.value}")
    made = chain(FORMS[choice.form], fitted.factors, site.part, site.geometry)
    if means is None:
        return with_bias(made, None)
    outputs, patches = means
    shift = outputs - mean_output(stored_kernel(site, choice, fitted), patches)
    return with_bias(made, np.asarray(shift + (0 if site.bias is None else site.bias)))


def stored_kernel(site: Site, choice: Choice, fitted: Fitted) -> Kernel:
    """The dense kernel [T, S / group, *window] of factors rounded to the stored dtype."""
    stored = [
        tuple(f.astype(site.kernel.dtype).astype(np.float64) for f in factors)
        for factors in fitted.factors
    ]
    return reconstructed(FORMS[choice.form], stored, site.part)


def mean_output(kernel: Kernel, means: Float[np.ndarray, "group KS"]) -> Float[np.ndarray, " T"]:
    """The mean output [T] of a kernel for the mean patches of its groups."""
    rows = flat(kernel).reshape(len(means), -1, means.shape[1])
    outputs: np.ndarray = np.einsum("gtk,gk->gt", rows, means).ravel()
    return outputs
