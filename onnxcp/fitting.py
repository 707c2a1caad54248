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
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from loky import ProcessPoolExecutor
from threadpoolctl import threadpool_limits

from onnxcp import store
from onnxcp.activations import Statistics
from onnxcp.conv import Chain, Kernel, Stage, with_bias
from onnxcp.errors import OnnxcpError, PlanError
from onnxcp.forms import DRAFT, FORMS, Effort, Outcome, grouped
from onnxcp.forms.form import Factors
from onnxcp.forms.grouped import chain, parts, reconstructed
from onnxcp.forms.norm import Norm, energy, flat, relative_error
from onnxcp.plan import Choice, Plan, round_up
from onnxcp.sites import Site
from onnxcp.store import Entry


@dataclass(frozen=True, slots=True, eq=False)
class Fitted(Entry):
    """The fits of a layer's groups, mostly one, as one."""

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
FIRST = 16  # the first knot of a ladder of ranks


@dataclass(frozen=True, slots=True, eq=False)
class Refit:
    """A new aim for a fit: the kernel and norm of every group, with the norms' hash; and for
    the bias the mean output wanted [T] and the mean patches [group, K·S] it is made of."""

    kernel: Kernel
    covariances: tuple[Path, ...]
    sha256: str
    outputs: np.ndarray
    means: np.ndarray


class Fits:
    """Remembers fits by kernel tensor, form and rank; sites that share a kernel share them.

    The norm is plain for kernels whose inputs nothing is known of. With `workers` fits run in
    other processes, and `get` may be called from several threads to keep them busy.
    `kept_in` is the folder of the store, if fits are to outlive the run.
    """

    def __init__(
        self,
        sites: Mapping[str, Site],
        seed: int,
        workers: Executor | None = None,
        kept_in: Path | None = None,
        device: str = "cpu",
    ) -> None:
        self._sites, self._seed, self._workers, self._store = sites, seed, workers, kept_in
        self._device = device
        self._statistics: Mapping[str, Statistics] = {}
        self.samples: str | None = None
        self._known: dict[tuple[str, Choice, Effort], Future[Fitted]] = {}
        self._refits: dict[tuple[str, Choice], tuple[Refit, Fitted]] = {}
        self._lock = threading.Lock()

    def learn(self, statistics: Mapping[str, Statistics], samples: str | None) -> None:
        """Fit from now on in the norm of these inputs, given by kernel tensor; `samples` is the
        hash of what was run to see them."""
        self._statistics, self.samples = statistics, samples
        with self._lock:
            self._known.clear()

    @property
    def refitted(self) -> int:
        """How many fits have had another aim."""
        return len(self._refits)

    def refit(self, name: str, choice: Choice, aim: Refit) -> None:
        """From now on the full fit of a site is of another kernel, begun from its present one.

        Raises:
            OnnxcpError: a process that fits was killed from outside.
        """
        site, present = self._sites[name], self.get(name, choice)
        task = Task(
            aim.kernel,
            site.group,
            aim.covariances,
            aim.sha256,
            choice,
            (),
            FULL,
            present.factors,
            self._store,
            self._device,
        )
        with _while_workers_live(name):
            done = self._submit(task).result()
        if done.outcome is not Outcome.DIVERGED:
            self._refits[name, choice] = (aim, done)

    def get(self, name: str, choice: Choice, effort: Effort = FULL) -> Fitted:
        """The fit of a site; computed at the first call.

        Raises:
            OnnxcpError: a process that fits was killed from outside.
        """
        if effort == FULL and (name, choice) in self._refits:
            return self._refits[name, choice][1]
        with _while_workers_live(name):
            return self._future(name, choice, effort).result()

    def _future(self, name: str, choice: Choice, effort: Effort) -> "Future[Fitted]":
        check(self._sites, name, choice)
        site = self._sites[name]
        key = (site.tensor, choice, effort)
        starts = self._below(site, choice) if effort == DRAFT and key not in self._known else ()
        with self._lock:
            if key not in self._known:
                self._known[key] = self._start(site, choice, effort, starts)
            return self._known[key]

    def _below(self, site: Site, choice: Choice) -> tuple[Factors, ...]:
        """Factors of the next knot below a draft's rank, which it grows from: the same whatever
        was asked for before."""
        rank, _ = knots(choice.rank, site.group)
        if rank is None:
            return ()
        below = self.get(site.name, Choice(choice.form, rank), DRAFT)
        return () if below.outcome is Outcome.DIVERGED else below.factors

    def _start(
        self, site: Site, choice: Choice, effort: Effort, starts: tuple[Factors, ...]
    ) -> "Future[Fitted]":
        seed = (self._seed, *_digits(f"{site.tensor}|{choice.form}|{choice.rank}"))
        known = self._statistics.get(site.tensor)
        task = Task(
            site.kernel,
            site.group,
            self._covariances(site),
            "" if known is None else known.sha256,
            choice,
            seed,
            effort,
            starts,
            self._store,
            self._device,
        )
        with _while_workers_live(site.name):
            return self._submit(task)

    def _submit(self, task: "Task") -> "Future[Fitted]":
        if self._workers is not None:
            return self._workers.submit(compute, task)
        future: Future[Fitted] = Future()
        future.set_result(compute(task))
        return future

    def _covariances(self, site: Site) -> tuple[Path | None, ...]:
        """The file of every group's covariance."""
        found = self._statistics.get(site.tensor)
        return (None,) * site.group if found is None else found.covariances

    def error(self, name: str, choice: Choice, effort: Effort = FULL) -> float:
        """Relative error; infinite for a fit that is not usable.

        That of a draft is read off the line through the two nearest knots, in logarithms.
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
        below, above = (
            _usable_error(self.get(name, Choice(choice.form, rank), DRAFT)) for rank in (low, high)
        )
        if not 0 < above < below < float("inf"):
            return min(below, above)
        share = math.log(choice.rank / low) / math.log(high / low)
        return math.exp((1 - share) * math.log(below) + share * math.log(above))

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
        wanted = _mean_output(site.kernel, mean)
        if effort == FULL and (site.name, choice) in self._refits:
            aim = self._refits[site.name, choice][0]
            wanted, mean = aim.outputs, aim.means
        shift = wanted - _mean_output(self._kernel(site, choice, effort), mean)
        return np.asarray(shift + (0 if site.bias is None else site.bias))

    def stored_error(self, name: str, choice: Choice) -> float:
        """Relative error, in the norm of the fit, of the factors as stored, rounded to the
        model's dtype."""
        site, fitted = self._sites[name], self.get(name, choice)
        if (name, choice) in self._refits:
            return fitted.error
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
    """All that a fit depends on, and where fits are kept.

    `inputs` is the hash of the covariances; `starts` are factors of the groups to begin from,
    random ones where there are none.
    """

    kernel: Kernel
    group: int
    covariances: tuple[Path | None, ...]
    inputs: str
    choice: Choice
    seed: tuple[int, ...]
    effort: Effort
    starts: tuple[Factors, ...] = ()
    store: Path | None = None
    device: str = "cpu"

    @property
    def key(self) -> str:
        arrays = [self.kernel, *(factor for factors in self.starts for factor in factors)]
        choice, effort = self.choice, self.effort
        settings = f"{self.group}|{self.inputs}|{choice}|{self.seed}|{effort}|{self.device}"
        return store.key_of(arrays, settings)


def compute(task: Task) -> Fitted:
    """The fits of a layer, from the store if they were made before.

    On one thread: their matrices are too small to share out, and several fits at once use
    the cores better.
    """
    if task.store is None:
        return _computed(task)
    kept = store.load(task.store, task.key)
    if kept is not None:
        return Fitted(kept.fits, kept.energies, kept.seconds)
    made = _computed(task)
    if made.outcome is not Outcome.DIVERGED:
        store.save(task.store, task.key, made)
    return made


def _computed(task: Task) -> Fitted:
    begun, form, rank = time.perf_counter(), FORMS[task.choice.form], task.choice.rank
    fits, energies, effort = [], [], replace(task.effort, device=task.device)
    with threadpool_limits(1):
        for number, kernel in enumerate(parts(task.kernel, task.group)):
            rng = np.random.default_rng((*task.seed, number))
            norm = _norm(task.covariances[number])
            start = task.starts[number] if task.starts else None
            fits.append(form.fit(kernel, rank // task.group, norm, rng, effort, start))
            energies.append(energy(kernel, norm))
    return Fitted(tuple(fits), tuple(energies), time.perf_counter() - begun)


def knots(rank: int, group: int) -> tuple[int | None, int]:
    """The ranks around `rank` at which drafts grow from one another, FIRST times powers of two:
    the largest one below it, if any, and the smallest one from it on."""
    below, above = None, math.lcm(FIRST, group)
    while above < rank:
        below, above = above, 2 * above
    return below, above


def _usable_error(fitted: Fitted) -> float:
    return float("inf") if fitted.outcome is Outcome.DIVERGED else fitted.error


def _mean_output(kernel: Kernel, means: np.ndarray) -> np.ndarray:
    """[T]: what a kernel makes of the mean patches [group, K·S] of its groups."""
    rows = flat(kernel).reshape(len(means), -1, means.shape[1])
    outputs: np.ndarray = np.einsum("gtk,gk->gt", rows, means).ravel()
    return outputs


def _norm(covariance: Path | None) -> Norm | None:
    return None if covariance is None else Norm.of(np.load(covariance))


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
