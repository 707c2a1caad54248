"""Fits of a model's sites, each computed once, and the chains they become.

A fit depends on its task alone: never on which fits came before.
"""

import math
import threading
from collections.abc import Mapping
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path

from onnxcp.cluster.pool import Cluster
from onnxcp.cluster.processes import naming_killed_process
from onnxcp.fitting.choices import check, largest_rank
from onnxcp.fitting.plan_chains import Chains, Means, Refit, chain_of, mean_output, stored_kernel
from onnxcp.fitting.rank_grid import knots, knots_up_to, read_off
from onnxcp.fitting.statistics import Statistics
from onnxcp.fitting.task import Aim, Fitted, Task, compute, norm_in
from onnxcp.forms import DRAFT, Effort
from onnxcp.forms.fit import Factors
from onnxcp.forms.grouped import parts
from onnxcp.forms.solvers.norm import relative_error
from onnxcp.graph.sites import Site
from onnxcp.plan import Choice, Plan
from onnxcp.seeds import digits

FULL = Effort()
STEEP = 0.01  # an error below this share of the one at half the rank is as good as exact


class Fits:
    """Computes fits, and remembers them by kernel tensor, form and rank.

    Sites that share a kernel share fits; parts of a chain left in float make no difference. The
    norm is plain for kernels without input statistics. With `workers`, fits run in other
    processes, and `get` may be called from several threads to keep them busy. With a `cluster`,
    these are its threads, each of which waits for a remote fit. `kept_in` is the folder of the
    store, if fits should outlive the run.
    """

    def __init__(
        self,
        sites: Mapping[str, Site],
        seed: int,
        workers: Executor | None = None,
        kept_in: Path | None = None,
        device: str = "cpu",
        cluster: Cluster | None = None,
    ) -> None:
        self._sites, self._seed, self._workers, self._store = sites, seed, workers, kept_in
        self._device = device
        self._compute = compute if cluster is None else partial(compute, cluster=cluster)
        self._statistics: Mapping[str, Statistics] = {}
        self._aims: dict[str, Aim] = {}
        self.samples: str | None = None
        self.count = 0  # of the samples, where not all of them were run
        self.drafts = False  # whether drafts stand for full fits: a run in a hurry
        self._known: dict[tuple[str, Choice, Effort], Future[Fitted]] = {}
        self._lock = threading.Lock()

    def learn(
        self, statistics: Mapping[str, Statistics], samples: str | None, count: int = 0
    ) -> None:
        """Fit in the norm of these input statistics, by kernel tensor, from now on.

        `samples` is the hash of the samples, `count` their number if these are not all.
        """
        self._statistics, self.samples, self.count = statistics, samples, count
        with self._lock:
            self._known.clear()
            self._aims.clear()

    def knows(self, site: Site) -> bool:
        """Whether there are statistics of a site's inputs."""
        return site.tensor in self._statistics

    def slowest_drafts(self) -> float:
        """The sum over kernels of the seconds of their slowest draft so far."""
        slowest: dict[str, float] = {}
        with self._lock:
            for (tensor, _, effort), future in self._known.items():
                if effort == DRAFT and future.done():
                    slowest[tensor] = max(slowest.get(tensor, 0.0), future.result().seconds)
        return sum(slowest.values())

    def get(self, name: str, choice: Choice, effort: Effort = FULL) -> Fitted:
        """The fit of a site, computed at the first call.

        Raises:
            OnnxcpError: a fitting process was killed.
        """
        with naming_killed_process(name):
            return self._future(name, choice, effort).result()

    def _future(self, name: str, choice: Choice, effort: Effort) -> Future[Fitted]:
        check(self._sites, name, choice)
        site, choice = self._sites[name], choice.plain
        effort = DRAFT if self.drafts and effort == FULL else effort
        key = (site.tensor, choice, effort)
        starts = self._below(site, choice) if effort == DRAFT and key not in self._known else ()
        with self._lock:
            if key not in self._known:
                self._known[key] = self._start(site, choice, effort, starts)
            return self._known[key]

    def _below(self, site: Site, choice: Choice) -> tuple[Factors, ...]:
        """Factors at the next knot below a draft's rank, from which the draft starts.

        They do not depend on earlier calls.
        """
        rank, _ = knots(choice.rank, site.group)
        if rank is None:
            return ()
        below = self.get(site.name, Choice(choice.form, rank), DRAFT)
        return () if not below.outcome.is_usable else below.factors

    def _start(
        self, site: Site, choice: Choice, effort: Effort, starts: tuple[Factors, ...]
    ) -> Future[Fitted]:
        seed = (self._seed, *digits(f"{site.tensor}|{choice.form}|{choice.rank}"))
        task = Task(choice, seed, effort, starts, self._store, self._device)
        with naming_killed_process(site.name):
            return self._submit(task, self._aim(site))

    def _submit(self, task: Task, aim: Aim) -> Future[Fitted]:
        if self._workers is not None:
            return self._workers.submit(self._compute, task, aim)
        future: Future[Fitted] = Future()
        future.set_result(self._compute(task, aim))
        return future

    def _aim(self, site: Site) -> Aim:
        """The target of a site's fits; shared by all of them, so that it is sent only once."""
        found = self._statistics.get(site.tensor)
        covariances = (None,) * site.group if found is None else found.covariances
        sha256 = "" if found is None else found.sha256
        aim = Aim(site.kernel, site.group, covariances, sha256)
        return self._aims.setdefault(site.tensor, aim)

    def error(self, name: str, choice: Choice, effort: Effort = FULL) -> float:
        """The relative error of a site's fit; infinite if the fit is not usable.

        For a draft it is interpolated between knots, by a monotone curve in logarithms.
        """
        site = self._sites[name]
        low, high = knots(choice.rank, site.group)
        if (
            effort != DRAFT
            or low is None
            or choice.rank == high
            or high > largest_rank(site, choice.form)
        ):
            return _usable_error(self.get(name, choice, effort))
        ranks = knots_up_to(high, site.group)
        errors = [_usable_error(self.get(name, Choice(choice.form, rank), DRAFT)) for rank in ranks]
        below, above = errors[-2:]
        if below <= above:
            return below
        if above < STEEP * below or below == math.inf:  # no curve leads to an exact fit
            return _usable_error(self.get(name, choice, effort))
        return read_off(choice.rank, ranks, errors)

    def chains(self, plan: Plan, effort: Effort = FULL) -> Chains:
        """The chain of every site that a plan changes.

        A chain has no bias, so that the node's own bias stays. If the mean of the inputs is known,
        the chain has a bias that compensates for the change of the mean output.

        Raises:
            PlanError: the plan names a site, form or rank that the model does not have, or a fit
                is not usable.
        """
        for name, choice in plan.choices.items():  # all at once, where there are workers
            self._future(name, choice, effort)
        fits = {name: self.get(name, choice, effort) for name, choice in plan.choices.items()}
        by_site = {
            name: chain_of(self._sites[name], plan.choices[name], fitted, self._mean_patches(name))
            for name, fitted in fits.items()
        }
        return Chains(plan, by_site, fits)

    def refit(self, chains: Chains, name: str, wanted: Refit) -> Chains:
        """The chains with one site fitted to another kernel, starting from its present factors.

        Unchanged if that fit is not usable.

        Raises:
            OnnxcpError: a fitting process was killed.
        """
        choice, starts = chains.plan.choices[name], chains.fits[name].factors
        task = Task(choice.plain, (), FULL, starts, self._store, self._device)
        with naming_killed_process(name):
            fitted = self._submit(task, wanted.aim).result()
        if not fitted.outcome.is_usable:
            return chains
        corrects = self._mean_patches(name) is not None
        means = (wanted.outputs, wanted.means) if corrects else None
        return chains.refitted(name, chain_of(self._sites[name], choice, fitted, means), fitted)

    def _mean_patches(self, name: str) -> Means | None:
        """The mean output of a site's kernel, and its mean patches; None if unknown."""
        site = self._sites[name]
        found = self._statistics.get(site.tensor)
        patches = None if found is None else found.means.get(name)
        return None if patches is None else (mean_output(site.kernel, patches), patches)

    def stored_error(self, chains: Chains, name: str) -> float:
        """The relative error, in the norm of the fit, of factors rounded to the model's dtype."""
        site, fitted = self._sites[name], chains.fits[name]
        if name in chains.refits:
            return fitted.error
        dense = parts(stored_kernel(site, chains.plan.choices[name], fitted), site.group)
        errors = [
            relative_error(kernel, model, norm) ** 2 * energy
            for kernel, model, norm, energy in zip(
                parts(site.kernel, site.group),
                dense,
                map(norm_in, self._aim(site).covariances),
                fitted.energies,
                strict=True,
            )
        ]
        return math.sqrt(sum(errors) / sum(fitted.energies)) if sum(fitted.energies) else 0.0


def _usable_error(fitted: Fitted) -> float:
    return float("inf") if not fitted.outcome.is_usable else fitted.error
