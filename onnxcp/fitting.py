"""Fits of a model's sites, each computed once, and the chains they become.

A fit depends on the kernel, form, rank and seed alone: never on which fits came before.
"""

import hashlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from loky import ProcessPoolExecutor
from threadpoolctl import threadpool_limits

from onnxcp.activations import Statistics
from onnxcp.conv import Chain, Kernel, Stage, with_bias
from onnxcp.errors import OnnxcpError, PlanError
from onnxcp.forms import FORMS, Effort, Fit, Outcome, grouped
from onnxcp.forms.form import Factors
from onnxcp.forms.grouped import chain, parts, reconstructed
from onnxcp.forms.norm import Norm, energy, flat, relative_error
from onnxcp.plan import Choice, Plan, round_up
from onnxcp.sites import Site


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """The fits of a layer's groups, mostly one, and the seconds they took.

    `energies` are ‖K‖² of the groups in the norm of the fit.
    """

    fits: tuple[Fit, ...]
    energies: tuple[float, ...]
    seconds: float

    @property
    def factors(self) -> tuple[Factors, ...]:
        return tuple(fit.factors for fit in self.fits)

    @property
    def error(self) -> float:
        """‖K − K̂‖ / ‖K‖ of the whole layer."""
        lost = sum(f.error**2 * e for f, e in zip(self.fits, self.energies, strict=True))
        return math.sqrt(lost / sum(self.energies)) if sum(self.energies) else 0.0

    @property
    def sensitivity_before(self) -> float:
        return sum(fit.sensitivity_before for fit in self.fits)

    @property
    def sensitivity_after(self) -> float:
        return sum(fit.sensitivity_after for fit in self.fits)

    @property
    def outcome(self) -> Outcome:
        """The worst of the groups'."""
        return max((fit.outcome for fit in self.fits), key=list(Outcome).index)


FULL = Effort()


class Fits:
    """Remembers fits by kernel tensor, form and rank; sites that share a kernel share them.

    The norm is plain for kernels whose inputs nothing is known of. With `workers` fits run in
    other processes, and `get` may be called from several threads to keep them busy.
    """

    def __init__(
        self,
        sites: Mapping[str, Site],
        seed: int,
        workers: Executor | None = None,
    ) -> None:
        self._sites, self._seed, self._workers = sites, seed, workers
        self._statistics: Mapping[str, Statistics] = {}
        self._known: dict[tuple[str, Choice, Effort], Future[Fitted]] = {}
        self._lock = threading.Lock()

    def learn(self, statistics: Mapping[str, Statistics]) -> None:
        """Fit from now on in the norm of these inputs, given by kernel tensor."""
        self._statistics = {**self._statistics, **statistics}
        with self._lock:
            self._known.clear()

    def get(self, name: str, choice: Choice, effort: Effort = FULL) -> Fitted:
        """The fit of a site; computed at the first call.

        Raises:
            OnnxcpError: a process that fits was killed from outside.
        """
        with _while_workers_live(name):
            return self._future(name, choice, effort).result()

    def _future(self, name: str, choice: Choice, effort: Effort) -> "Future[Fitted]":
        check(self._sites, name, choice)
        site = self._sites[name]
        key = (site.tensor, choice, effort)
        with self._lock:
            if key not in self._known:
                self._known[key] = self._start(site, choice, effort)
            return self._known[key]

    def _start(self, site: Site, choice: Choice, effort: Effort) -> "Future[Fitted]":
        seed = (self._seed, *_digits(f"{site.tensor}|{choice.form}|{choice.rank}"))
        task = Task(site.kernel, site.group, self._covariances(site), choice, seed, effort)
        if self._workers is not None:
            with _while_workers_live(site.name):
                return self._workers.submit(compute, task)
        future: Future[Fitted] = Future()
        future.set_result(compute(task))
        return future

    def _covariances(self, site: Site) -> tuple[Path | None, ...]:
        """The file of every group's covariance."""
        found = self._statistics.get(site.tensor)
        return (None,) * site.group if found is None else found.covariances

    def error(self, name: str, choice: Choice, effort: Effort = FULL) -> float:
        """Relative error; infinite for a fit that is not usable."""
        fitted = self.get(name, choice, effort)
        return float("inf") if fitted.outcome is Outcome.DIVERGED else fitted.error

    def chains(self, plan: Plan, effort: Effort = FULL) -> dict[str, Chain]:
        """The chain of every site a plan changes.

        Without a bias, so that the node's own stays; but where the inputs' mean is known the
        bias makes up for what the chain changes in it.

        Raises:
            PlanError: the plan names a site, form or rank that the model does not have, or
                a fit came out unusable.
        """
        for name, choice in plan.choices.items():  # all at once, where there are workers
            self._future(name, choice, effort)
        return {name: self._chain(name, c, effort) for name, c in plan.choices.items()}

    def _chain(self, name: str, choice: Choice, effort: Effort) -> Chain:
        site, fitted = self._sites[name], self.get(name, choice, effort)
        if fitted.outcome is Outcome.DIVERGED:
            raise PlanError(f"{name}: {choice.form} at rank {choice.rank} {fitted.outcome.value}")
        made = chain(FORMS[choice.form], fitted.factors, site.part, site.geometry)
        return with_bias(made, self._bias(site, choice, effort))

    def _bias(self, site: Site, choice: Choice, effort: Effort) -> np.ndarray | None:
        """The site's bias with the mean of what its chain changes made up for."""
        found = self._statistics.get(site.tensor)
        mean = None if found is None else found.means.get(site.name)
        if mean is None:
            return None
        changed = flat(site.kernel) - flat(self._kernel(site, choice, effort))
        shift = np.einsum("gtk,gk->gt", changed.reshape(site.group, -1, changed.shape[1]), mean)
        return np.asarray(shift.ravel() + (0 if site.bias is None else site.bias))

    def stored_error(self, name: str, choice: Choice) -> float:
        """Relative error, in the norm of the fit, of the factors as stored, rounded to the
        model's dtype."""
        site, fitted = self._sites[name], self.get(name, choice)
        dense = parts(self._kernel(site, choice, FULL), site.group)
        errors = [
            relative_error(kernel, model, norm) ** 2 * energy
            for kernel, model, norm, energy in zip(
                parts(site.kernel, site.group),
                dense,
                map(_norm, self._covariances(site)),
                fitted.energies,
                strict=True,
            )
        ]
        return math.sqrt(sum(errors) / sum(fitted.energies)) if sum(fitted.energies) else 0.0

    def dense(self, plan: Plan) -> dict[str, Chain]:
        """One dense stage for every site a plan changes: what its chain stands for, factors
        rounded as stored."""
        made: dict[str, Chain] = {}
        for name, choice in plan.choices.items():
            site = self._sites[name]
            kernel = self._kernel(site, choice, FULL)
            bias = self._bias(site, choice, FULL)
            made[name] = (Stage("dense", kernel, site.geometry, site.group, bias),)
        return made

    def _kernel(self, site: Site, choice: Choice, effort: Effort) -> Kernel:
        stored = [
            tuple(f.astype(site.kernel.dtype).astype(np.float64) for f in factors)
            for factors in self.get(site.name, choice, effort).factors
        ]
        return reconstructed(FORMS[choice.form], stored, site.part)


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """All that a fit depends on."""

    kernel: Kernel
    group: int
    covariances: tuple[Path | None, ...]
    choice: Choice
    seed: tuple[int, ...]
    effort: Effort


def _norm(covariance: Path | None) -> Norm | None:
    return None if covariance is None else Norm.of(np.load(covariance))


def compute(task: Task) -> Fitted:
    """The fits of a layer, on one thread: their matrices are too small to share out, and
    several fits at once use the cores better."""
    start, form, rank = time.perf_counter(), FORMS[task.choice.form], task.choice.rank
    fits, energies = [], []
    with threadpool_limits(1):
        for number, kernel in enumerate(parts(task.kernel, task.group)):
            rng = np.random.default_rng((*task.seed, number))
            norm = _norm(task.covariances[number])
            fits.append(form.fit(kernel, rank // task.group, norm, rng, task.effort, None))
            energies.append(energy(kernel, norm))
    return Fitted(tuple(fits), tuple(energies), time.perf_counter() - start)


@contextmanager
def workers(jobs: int) -> Iterator[Executor | None]:
    """Processes for fits, gone when the block ends, however it ends; None for one job."""
    if jobs == 1:
        yield None
        return
    with _interrupts_ignored(), _tracker_silenced():
        executor = ProcessPoolExecutor(jobs)
        started = [executor.submit(int) for _ in range(jobs)]
    try:
        wait(started)  # so that nothing starts up while something is timed
        yield executor
    finally:
        executor.shutdown(wait=True, kill_workers=True)


@contextmanager
def _while_workers_live(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenExecutor as error:
        raise OnnxcpError(
            f"{name}: a process that fits was killed, probably for lack of memory; "
            "try a smaller --jobs"
        ) from error


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started inside never see Ctrl-C, which reaches every process of a terminal:
    the first one ends the others. Ignored signals are inherited, before a child runs a line."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _tracker_silenced() -> Iterator[None]:
    """Processes started inside do not warn of semaphores that a killed one left: loky's
    tracker, which does, is also what cleans them up."""
    name, quiet = "PYTHONWARNINGS", "ignore::UserWarning:loky.backend.resource_tracker"
    before = os.environ.get(name)
    os.environ[name] = f"{before},{quiet}" if before else quiet
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def check(sites: Mapping[str, Site], name: str, choice: Choice) -> None:
    """Raises PlanError if a choice can not be made for a site, with what could."""
    if name not in sites:
        raise PlanError(
            f"the plan names {name!r}, which is no site of this model; `onnxcp inspect` lists them"
        )
    if choice.form not in FORMS:
        raise PlanError(f"{name}: unknown form {choice.form!r}; choose one of {', '.join(FORMS)}")
    site = sites[name]
    reason = FORMS[choice.form].refuses(site.part)
    if reason is not None:
        raise PlanError(f"{name}: {choice.form}: {reason}")
    outputs, most = site.shape[0], largest_rank(site, choice.form)
    if choice.rank % site.group:
        raise PlanError(
            f"{name}: rank {choice.rank} is no multiple of its {site.group} groups; "
            f"try --rank '{name}={round_up(choice.rank, site.group)}'"
        )
    if not 1 <= choice.rank <= most:
        size = "×".join(map(str, site.shape))
        raise PlanError(
            f"{name}: rank {choice.rank} is not in 1..{most}, all that a {size} kernel can use; "
            f"try --rank '{name}={min(most, outputs)}'"
        )


def largest_rank(site: Site, form: str) -> int:
    """The rank at which a form can write a site's kernel exactly: more has no use."""
    return grouped.largest_rank(FORMS[form], site.shape, site.group)


def _digits(text: str) -> list[int]:
    digest = hashlib.sha256(text.encode()).digest()
    return [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]
