"""Fits of a model's sites, each computed once, and the chains they become.

A fit depends on the kernel, form, rank and seed alone: never on which fits came before.
"""

import hashlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from loky import ProcessPoolExecutor
from threadpoolctl import threadpool_limits

from onnxcp.conv import Chain, Kernel
from onnxcp.errors import OnnxcpError, PlanError
from onnxcp.forms import FORMS, Effort, Fit, Outcome, Shape
from onnxcp.forms.algebra import Factors
from onnxcp.plan import Choice, Plan
from onnxcp.sites import Site


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A fit and the seconds it took."""

    fit: Fit
    seconds: float


FULL = Effort()


class Fits:
    """Remembers fits by kernel tensor, form and rank; sites that share a kernel share them.

    With `workers` fits run in other processes, and `get` may be called from several threads
    to keep them busy.
    """

    def __init__(
        self, sites: Mapping[str, Site], seed: int, workers: Executor | None = None
    ) -> None:
        self._sites, self._seed, self._workers = sites, seed, workers
        self._known: dict[tuple[str, Choice, Effort], Future[Fitted]] = {}
        self._lock = threading.Lock()

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
        seed = [self._seed, *_digits(f"{site.tensor}|{choice.form}|{choice.rank}")]
        if self._workers is not None:
            with _while_workers_live(site.name):
                return self._workers.submit(compute, site.kernel, choice, seed, effort)
        future: Future[Fitted] = Future()
        future.set_result(compute(site.kernel, choice, seed, effort))
        return future

    def error(self, name: str, choice: Choice, effort: Effort = FULL) -> float:
        """Relative kernel error; infinite for a fit that is not usable."""
        fit = self.get(name, choice, effort).fit
        return float("inf") if fit.outcome is Outcome.DIVERGED else fit.error

    def chains(self, plan: Plan, effort: Effort = FULL) -> dict[str, Chain]:
        """The chain of every site a plan changes, without bias: the node's own stays.

        Raises:
            PlanError: the plan names a site, form or rank that the model does not have, or
                a fit came out unusable.
        """
        for name, choice in plan.choices.items():  # all at once, where there are workers
            self._future(name, choice, effort)
        return {name: self._chain(name, c, effort) for name, c in plan.choices.items()}

    def _chain(self, name: str, choice: Choice, effort: Effort) -> Chain:
        site, fit = self._sites[name], self.get(name, choice, effort).fit
        if fit.outcome is Outcome.DIVERGED:
            raise PlanError(f"{name}: {choice.form} at rank {choice.rank} {fit.outcome.value}")
        return FORMS[choice.form].stages(fit.factors, site.shape, site.geometry, None)

    def stored_error(self, name: str, choice: Choice) -> float:
        """Relative kernel error of the factors as stored, rounded to the model's dtype."""
        kernel = self._sites[name].kernel.astype(np.float64)
        size = float(np.linalg.norm(kernel))
        return float(np.linalg.norm(kernel - self._kernel(name, choice))) / size if size else 0.0

    def kernels(self, plan: Plan) -> dict[str, Kernel]:
        """The dense kernels that the plan's chains stand for, factors rounded as stored."""
        return {name: self._kernel(name, choice) for name, choice in plan.choices.items()}

    def _kernel(self, name: str, choice: Choice) -> Kernel:
        site, form = self._sites[name], FORMS[choice.form]
        factors = self.get(name, choice).fit.factors
        stored: Factors = tuple(f.astype(site.kernel.dtype).astype(np.float64) for f in factors)
        return form.reconstruct(stored, site.shape)


def compute(kernel: Kernel, choice: Choice, seed: Sequence[int], effort: Effort) -> Fitted:
    """One fit, on one thread: its matrices are too small to share out, and several fits at
    once use the cores better."""
    start = time.perf_counter()
    with threadpool_limits(1):
        rng = np.random.default_rng(seed)
        fit = FORMS[choice.form].fit(kernel, choice.rank, rng, effort)
    return Fitted(fit, time.perf_counter() - start)


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
    reason = FORMS[choice.form].refuses(sites[name].shape)
    if reason is not None:
        raise PlanError(f"{name}: {choice.form}: {reason}")
    outputs = sites[name].shape[0]
    most = largest_rank(sites[name].shape)
    if not 1 <= choice.rank <= most:
        size = "×".join(map(str, sites[name].shape))
        raise PlanError(
            f"{name}: rank {choice.rank} is not in 1..{most}, all that a {size} kernel can use; "
            f"try --rank '{name}={min(most, outputs)}'"
        )


def largest_rank(shape: Shape) -> int:
    """The rank at which a kernel can be written exactly: more has no use."""
    return math.prod(shape) // max(shape[:2])


def _digits(text: str) -> list[int]:
    digest = hashlib.sha256(text.encode()).digest()
    return [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]
