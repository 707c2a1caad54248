"""Plain factors to compare ours with, and the run of `optimize` whose kernels they are of.

A run here has every 3×3 kernel of a CIFAR-10 network but the first at one rank, in multiples
of its output channels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from networks import MODELS

from onnxcp.forms.solvers.cp_algebra import Factors, Target, balance, dense
from onnxcp.forms.solvers.cp_als import WINDOW, Iterates, least_squares, sweep
from onnxcp.forms.solvers.norm import relative_error
from onnxcp.graph.sites import Site
from onnxcp.optimization.forced_ranks import forced_choices
from onnxcp.optimization.open_run import open_run
from onnxcp.optimization.run import Run
from onnxcp.optimization.settings import Asked, Settings
from onnxcp.options.data import DataOptions
from onnxcp.options.fit import FitOptions
from onnxcp.options.plan import PlanOptions
from onnxcp.options.run import RunOptions
from onnxcp.options.target import TargetOptions
from onnxcp.plan import Plan
from onnxcp.progress import silent


def alternating(
    target: Target,
    rank: int,
    rng: np.random.Generator,
    sweeps: int,
    *,
    goal: float = 0.0,
    settled: float = 0.0,
) -> Iterates:
    """Plain alternating least squares from random factors; the objective is the squared error.

    Ends at the relative error `goal`, or where `als.WINDOW` sweeps took less than the share
    `settled` of the squared error away: only then it has converged.
    """
    factors = balance([rng.standard_normal((size, rank)) for size in target.shape])
    errors = [target.energy]
    for used in range(1, sweeps + 1):
        factors, error = sweep(target, factors, least_squares)
        errors.append(error)
        if error <= goal**2 * target.energy:
            return Iterates(factors, error, used, False)
        if used > WINDOW and errors[-WINDOW - 1] - error < settled * error:
            return Iterates(factors, error, used, True)
    return Iterates(factors, errors[-1], sweeps, False)


def kernel_error(site: Site, factors: Factors) -> float:
    """‖K − K̂‖ / ‖K‖ in the plain norm, of the kernels themselves."""
    return relative_error(site.kernel, dense(factors, site.shape), None)


@contextmanager
def uniform_job(model: str, form: str, ratio: float, data: Path, seed: int = 0) -> Iterator[Run]:
    """What `optimize` makes of a CIFAR-10 network at rank = ratio × output channels; its fits
    are in the plain norm until it is told to calibrate."""
    folder = data / "cifar10"
    samples = DataOptions(
        data=(str(folder / "test.npz"),),
        calibration=(str(folder / "calibration.npz"),),
        preprocess="cifar10",
    )
    with TemporaryDirectory() as temporary:
        asked = Asked(
            data=samples,
            plan=PlanOptions(form=form, rank=(f"*={ratio}c",), exclude=("conv1",)),
            target=TargetOptions(threads=1),
            fit=FitOptions(jobs=1, no_cache=True),
            run=RunOptions(seed=seed),
        )
        settings = Settings.of(data / MODELS[model], Path(temporary) / "out.onnx", asked)
        with open_run(settings, silent) as job:
            yield job


def forced_plan(job: Run) -> Plan:
    """The plan that the run's ranks name, in its one form."""
    return Plan({name: made[0] for name, made in forced_choices(job).items()})
