"""One fit as a task for any process or machine: its target, its settings, and its store."""

import functools
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.linalg  # noqa: F401  before a limit of threads: it holds for what is loaded
from threadpoolctl import threadpool_limits

from onnxcp.chain import Kernel
from onnxcp.cluster.pool import Cluster, SharedValue
from onnxcp.fitting import store
from onnxcp.fitting.store import Entry
from onnxcp.forms import FORMS, Effort, Outcome
from onnxcp.forms.fit import Factors
from onnxcp.forms.grouped import parts
from onnxcp.forms.solvers.norm import Norm, energy
from onnxcp.plan import Choice
from onnxcp.storage import keys

CODE = ("chain", "fitting", "forms")  # of a fit

Covariance = Path | np.ndarray | None  # a file's, or itself; None where nothing is known


@dataclass(frozen=True, slots=True, eq=False)
class Fitted(Entry):
    """The fits of a layer's groups, mostly one, combined."""

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
        """The worst outcome of the groups."""
        return max((fit.outcome for fit in self.fits), key=list(Outcome).index)


@dataclass(frozen=True, slots=True, eq=False)
class Aim(SharedValue):
    """The target of fits: a kernel, in the norm of the covariances of its groups' inputs.

    With the hash of the covariances, empty if there are none.
    """

    kernel: Kernel
    group: int
    covariances: tuple[Covariance, ...]
    sha256: str

    def packed(self) -> "Aim":
        """The target with its covariances in memory, for a worker that does not share the disk."""
        return replace(self, covariances=tuple(_loaded(c) for c in self.covariances))

    def __sizeof__(self) -> int:  # what Dask goes by when it places and keeps it
        held = (self.kernel, *self.covariances)
        return sum(a.nbytes for a in held if isinstance(a, np.ndarray))


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """The settings of a fit, and the store; together with the target, all that it depends on.

    `starts` are factors of the groups to start from; random without.
    """

    choice: Choice
    seed: tuple[int, ...]
    effort: Effort
    starts: tuple[Factors, ...] = ()
    store: Path | None = None
    device: str = "cpu"

    def key(self, aim: Aim) -> str:
        arrays = [aim.kernel, *(factor for factors in self.starts for factor in factors)]
        settings = {
            "group": aim.group,
            "covariances": aim.sha256,
            "choice": self.choice.plain,
            "seed": self.seed,
            "effort": self.effort,
            "device": self.device,
        }
        return keys.key("fit", CODE, settings, arrays)


def compute(task: Task, aim: Aim, cluster: Cluster | None = None) -> Fitted:
    """The fits of a layer, from the store, or else computed here or on a cluster.

    They run on one thread: their matrices are too small for more, and several fits at once use
    the cores better.
    """
    if task.store is None:
        return _computed(task, aim, cluster)
    key = task.key(aim)
    kept = store.load(task.store, key)
    if kept is not None:
        return Fitted(kept.fits, kept.energies, kept.seconds)
    made = _computed(task, aim, cluster)
    if made.outcome.is_usable:
        store.save(task.store, key, made)
    return made


def _computed(task: Task, aim: Aim, cluster: Cluster | None) -> Fitted:
    if cluster is None:
        return fit(task, aim)
    made: Fitted = cluster.call(fit_there, replace(task, store=None), aim)
    return made


def fit(task: Task, aim: Aim) -> Fitted:
    """The fits of a layer, computed in this process."""
    begun, form, rank = time.perf_counter(), FORMS[task.choice.form], task.choice.rank
    fits, energies, effort = [], [], replace(task.effort, device=task.device)
    with threadpool_limits(1):
        for number, kernel in enumerate(parts(aim.kernel, aim.group)):
            rng = np.random.default_rng((*task.seed, number))
            norm = norm_in(aim.covariances[number])
            start = task.starts[number] if task.starts else None
            fits.append(form.fit(kernel, rank // aim.group, norm, rng, effort, start))
            energies.append(energy(kernel, norm))
    return Fitted(tuple(fits), tuple(energies), time.perf_counter() - begun)


def fit_there(task: Task, aim: Aim) -> Fitted:
    """The same on a worker, where several may run at once in one process."""
    _on_one_thread()
    return fit(task, aim)


@functools.cache
def _on_one_thread() -> None:
    """Limit linear algebra to one thread, for the life of the worker.

    Limits that single fits set and lift would overlap, and products on several threads can differ
    in the last bit.
    """
    threadpool_limits(1)


def norm_in(covariance: Covariance) -> Norm | None:
    """The norm of a covariance; the plain norm for None."""
    loaded = _loaded(covariance)
    return None if loaded is None else Norm.of(loaded)


def _loaded(covariance: Covariance) -> np.ndarray | None:
    return np.load(covariance) if isinstance(covariance, Path) else covariance
