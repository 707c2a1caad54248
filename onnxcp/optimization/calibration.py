"""Calibration in a run: the fits of layers learn what those layers read."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from onnxcp.data.roles import Inputs
from onnxcp.errors import PlanError
from onnxcp.fitting.calibrate import calibrate
from onnxcp.fitting.statistics import Statistics
from onnxcp.graph.sites import Site
from onnxcp.measure.time_budget import now
from onnxcp.optimization.run import Run

FEW, WORTH = 4, 2  # calibration samples that tell how long others take; how often as many pay


def learn_inputs(run: Run, names: Collection[str]) -> None:
    """Fit what is named in the norm of its real inputs, where there are calibration data; what
    is known already stays.

    Raises:
        DataError: activations that are NaN or infinite.
        PlanError: a replayed plan was made with other samples.
        UsageError: a memory limit that cannot be kept.
    """
    known = run.fits.knows
    sites = [s for s in run.sites if s.name in names or known(s)]
    replayed = None if run.settings.plan.plan is None else run.settings.recipe
    if all(map(known, sites)) or (replayed is not None and replayed.calibration is None):
        return
    inputs = run.inputs
    if replayed is not None and replayed.calibration_samples:
        inputs = _fewer(inputs, replayed.calibration_samples)
    if run.time.is_limited and replayed is None and inputs.calibration is not None:
        inputs, found, samples = _in_time(run, sites, len(inputs.calibration))
    else:
        found, samples = _statistics(run, sites, inputs)
    if replayed is not None and samples != replayed.calibration:
        raise PlanError(
            f"{run.settings.plan.plan}: the plan's fits were made with other calibration "
            "samples; pass the <<data>>, <<calibration>> and <<preprocess>> of the run "
            "that wrote it"
        )
    is_all = inputs is run.inputs or inputs.calibration is None
    run.fits.learn(found, samples, 0 if is_all else len(inputs.calibration or ()))


def _in_time(
    run: Run, sites: Sequence[Site], count: int
) -> tuple[Inputs, dict[str, Statistics], str | None]:
    """The statistics of as many samples as there is time for, which a few of them tell."""
    end, begun, few = run.time.end_of("calibration"), now(), _fewer(run.inputs, FEW)
    found, samples = _statistics(run, sites, few)
    took = now() - begun
    affordable = min(count, int(FEW * (end - now()) / max(took, 1e-9)))
    if affordable < WORTH * FEW or count <= FEW:
        return few, found, samples
    inputs = _fewer(run.inputs, affordable)
    return inputs, *_statistics(run, sites, inputs)


def _statistics(
    run: Run, sites: Sequence[Site], inputs: Inputs
) -> tuple[dict[str, Statistics], str | None]:
    return calibrate(
        run.model,
        sites,
        inputs,
        run.settings.target,
        run.folder,
        among=run.sites,
        correct_bias=run.settings.recipe.correct_bias,
        memory=run.settings.recipe.memory,
        seed=run.settings.recipe.seed,
        kept_in=run.settings.run.work_dir,
        progress=run.progress,
    )


def _fewer(inputs: Inputs, count: int) -> Inputs:
    """With so many of the calibration samples, at equal distances; as they are where there are
    no more."""
    samples = inputs.calibration
    if samples is None or count >= len(samples):
        return inputs
    return replace(inputs, calibration=samples.spaced(count))
