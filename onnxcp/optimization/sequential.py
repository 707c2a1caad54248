"""Sequential calibration: each chain is fitted to what the chains before it left of its inputs.

Sites are refitted in graph order. With x a site's input in the original model and x̃ in the
model rewritten up to there, the chain's kernel K̂ is to bring K̂·x̃ near K·x:

    E‖K x − K̂ x̃‖² = ‖K' − K̂‖²_Σ̃ + const,   K' = K · E[x x̃ᵀ] · Σ̃⁻¹,   Σ̃ = E[x̃ x̃ᵀ],

a fit of the kernel K' in the norm of x̃, begun from the chain's present factors. The bias
makes up for the means. Source: Zhang et al. 2016, arXiv:1505.06798 (asymmetric
reconstruction).
"""

import math
from collections.abc import Iterator

import numpy as np
import scipy.linalg

from onnxcp.chain import Kernel
from onnxcp.fitting.drift import Drift, drift
from onnxcp.fitting.fits import Refit
from onnxcp.fitting.statistics import stored
from onnxcp.fitting.task import Aim
from onnxcp.forms.grouped import parts
from onnxcp.forms.solvers.norm import RIDGE, flat, unflat
from onnxcp.graph import io
from onnxcp.graph.sites import Site
from onnxcp.graph.splice import only, rewrite
from onnxcp.optimization.job import Job
from onnxcp.plan import Plan
from onnxcp.runtime.sessions import Runner


def refine(job: Job, plan: Plan) -> None:
    """Refit a plan's sites one after the other; without calibration data nothing happens.

    A site whose patch covariance would not fit the memory allowed keeps its fit.
    """
    if job.inputs.calibration is None or job.fits.samples is None:
        return
    job.fits.forget_refits()  # of a plan tried before
    sites = [s for s in job.sites if s.name in plan.choices]
    for number, site in enumerate(sites):
        job.progress("calibrate in sequence", number, len(sites))
        if 8 * site.group * math.prod(site.part[1:]) ** 2 > job.recipe.memory:
            continue
        found = drift(
            _seen(job, site, plan, sites[:number]),
            len(job.inputs.calibration),
            site,
            correct_bias=job.recipe.correct_bias,
            seed=job.recipe.seed,
        )
        job.fits.refit(site.name, plan.choices[site.name], _refit(job, site, found, number))


def target(kernel: Kernel, cross: np.ndarray, covariance: np.ndarray) -> Kernel:
    """K' of one group; the ridge pulls it to K where the inputs hardly vary."""
    ridge = RIDGE * float(np.trace(covariance)) / len(covariance)
    damped = covariance + ridge * np.eye(len(covariance), dtype=covariance.dtype)
    wanted = flat(kernel) @ (cross + ridge * np.eye(len(cross), dtype=cross.dtype))
    solved = scipy.linalg.solve(damped, wanted.T, assume_a="pos", overwrite_a=True)
    return unflat(solved.T, kernel.shape)


def _refit(job: Job, site: Site, found: Drift, number: int) -> Refit:
    groups = parts(site.kernel, site.group)
    measured = zip(groups, found.crosses, found.covariances, strict=True)
    kernels = [target(kernel, cross, covariance) for kernel, cross, covariance in measured]
    paths, sha256 = stored(found.covariances, job.folder, f"sequential-{number}")
    outputs = [flat(k) @ mean for k, mean in zip(groups, found.before, strict=True)]
    aim = Aim(np.concatenate(kernels), site.group, paths, sha256)
    return Refit(aim, np.concatenate(outputs), found.after)


def _seen(
    job: Job, site: Site, plan: Plan, before: list[Site]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What a site reads in the original and in the model rewritten before it, by batch."""
    assert job.inputs.calibration is not None
    done = Plan({s.name: plan.choices[s.name] for s in before})
    original = _runner(job, Plan(), site, "original.onnx")
    rewritten = _runner(job, done, site, "sequence.onnx")
    batching = job.inputs.calibration_batching
    for feeds in job.inputs.calibration.batches(batching.size):
        if site.source in feeds:
            yield feeds[site.source], feeds[site.source]
        else:
            yield batching.run(original, feeds)[0], batching.run(rewritten, feeds)[0]


def _runner(job: Job, plan: Plan, site: Site, name: str) -> Runner:
    path = job.folder / name
    proto, external = job.model.proto, job.model.external
    made = rewrite(proto, job.fits.chains(plan), job.sites, metadata={}, external=external)
    io.save(only(made.proto, site.source), path, made.external)
    return job.judged_runner(path)
