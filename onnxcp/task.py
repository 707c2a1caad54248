"""One fit as a task that any process can do: all it depends on, and the store it is kept in."""

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from onnxcp import store
from onnxcp.conv import Kernel
from onnxcp.forms import FORMS, Effort, Outcome
from onnxcp.forms.form import Factors
from onnxcp.forms.grouped import parts
from onnxcp.forms.norm import Norm, energy
from onnxcp.plan import Choice
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
            norm = norm_in(task.covariances[number])
            start = task.starts[number] if task.starts else None
            fits.append(form.fit(kernel, rank // task.group, norm, rng, effort, start))
            energies.append(energy(kernel, norm))
    return Fitted(tuple(fits), tuple(energies), time.perf_counter() - begun)


def norm_in(covariance: Path | None) -> Norm | None:
    """The norm of a covariance in a file; the plain one for None."""
    return None if covariance is None else Norm.of(np.load(covariance))
