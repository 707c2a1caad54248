"""Sequential calibration: each chain is fitted to its inputs in the model rewritten before it.

Sites are refitted in graph order. With x a site's input in the original model and x̃ in the
model rewritten up to there, the chain's kernel K̂ should bring K̂·x̃ close to K·x:

    E‖K x − K̂ x̃‖² = ‖K' − K̂‖²_Σ̃ + const,   K' = K · E[x x̃ᵀ] · Σ̃⁻¹,   Σ̃ = E[x̃ x̃ᵀ],

a fit of the kernel K' in the norm of x̃, starting from the chain's present factors. The bias
compensates for the means. Source: Zhang et al. 2016, arXiv:1505.06798 (asymmetric
reconstruction).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.linalg

from onnxcp.chain import Chain, Kernel
from onnxcp.data.samples import Batching, Samples
from onnxcp.fitting.drift import Drift, drift
from onnxcp.fitting.fits import Fits
from onnxcp.fitting.plan_chains import Chains, Refit
from onnxcp.fitting.statistics import stored
from onnxcp.fitting.task import Aim
from onnxcp.forms.grouped import parts
from onnxcp.forms.solvers.norm import RIDGE, flat, unflat
from onnxcp.graph import io
from onnxcp.graph.sites import Site
from onnxcp.graph.splice import only, rewrite
from onnxcp.plan import Recipe
from onnxcp.progress import Progress, silent
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import Runner, open_runner


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """All that sequential calibration needs: a model, its sites in graph order, the calibration
    set, and a folder for models and covariances."""

    model: io.Model
    sites: Sequence[Site]
    samples: Samples
    batching: Batching
    target: Target
    recipe: Recipe
    folder: Path
    progress: Progress = silent


def refine(calibration: Calibration, fits: Fits, chains: Chains) -> Chains:
    """Refit the chains of a plan one after the other.

    A site whose patch covariance does not fit the memory limit keeps its fit.
    """
    recipe, names = calibration.recipe, chains.plan.choices
    sites = [site for site in calibration.sites if site.name in names]
    for number, site in enumerate(sites):
        calibration.progress("calibrate in sequence", number, len(sites))
        if 8 * site.group * math.prod(site.part[1:]) ** 2 > recipe.memory:
            continue
        before = {s.name: chains.by_site[s.name] for s in sites[:number]}
        measured = drift(
            _seen(calibration, site, before),
            len(calibration.samples),
            site,
            correct_bias=recipe.correct_bias,
            seed=recipe.seed,
        )
        stored_as = calibration.folder, f"sequential-{number}"
        chains = fits.refit(chains, site.name, _refit(site, measured, *stored_as))
    return chains


def target(kernel: Kernel, cross: np.ndarray, covariance: np.ndarray) -> Kernel:
    """K' of one group; a ridge keeps it close to K in directions where inputs hardly vary."""
    ridge = RIDGE * float(np.trace(covariance)) / len(covariance)
    damped = covariance + ridge * np.eye(len(covariance), dtype=covariance.dtype)
    wanted = flat(kernel) @ (cross + ridge * np.eye(len(cross), dtype=cross.dtype))
    solved = scipy.linalg.solve(damped, wanted.T, assume_a="pos", overwrite_a=True)
    return unflat(solved.T, kernel.shape)


def _refit(site: Site, measured: Drift, folder: Path, name: str) -> Refit:
    groups = parts(site.kernel, site.group)
    pairs = zip(groups, measured.crosses, measured.covariances, strict=True)
    kernels = [target(kernel, cross, covariance) for kernel, cross, covariance in pairs]
    paths, sha256 = stored(measured.covariances, folder, name)
    outputs = [flat(k) @ mean for k, mean in zip(groups, measured.before, strict=True)]
    aim = Aim(np.concatenate(kernels), site.group, paths, sha256)
    return Refit(aim, np.concatenate(outputs), measured.after)


def _seen(
    calibration: Calibration, site: Site, before: Mapping[str, Chain]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A site's inputs in the original and in the model rewritten before it, by batch."""
    original = _runner(calibration, {}, site, "original.onnx")
    rewritten = _runner(calibration, before, site, "sequence.onnx")
    batching = calibration.batching
    for feeds in calibration.samples.batches(batching.size):
        if site.source in feeds:
            yield feeds[site.source], feeds[site.source]
        else:
            yield batching.run(original, feeds)[0], batching.run(rewritten, feeds)[0]


def _runner(calibration: Calibration, chains: Mapping[str, Chain], site: Site, name: str) -> Runner:
    path, model = calibration.folder / name, calibration.model
    sites, external = calibration.sites, model.external
    made = rewrite(model.proto, chains, sites, metadata={}, external=external)
    io.save(only(made.proto, site.source), path, made.external)
    return open_runner(path, calibration.target.unhurried)
