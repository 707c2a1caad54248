"""The files of one run of `optimize`: what it writes, and what it reads."""

from onnxcp.artifacts.reservation import Reads, model_files, reserve, reserve_folder
from onnxcp.optimization.pareto import front_files
from onnxcp.optimization.settings import Settings
from onnxcp.plan import plan_file
from onnxcp.storage import workdir


def reserve_outputs(settings: Settings) -> None:
    """Make sure, before any work, that a run can write what it may write.

    Raises:
        OutputError: something exists and may not be replaced, is read by the run, is no plain
            file, or cannot be written.
    """
    output = settings.output
    outputs = [*model_files(output), plan_file(output), *settings.run.report]
    if settings.plan.pareto is not None:
        reserve_folder(settings.plan.pareto, overwrite=settings.run.overwrite)
        outputs += front_files(settings.model, settings.plan.pareto)
    reserve(outputs, reads(settings), overwrite=settings.run.overwrite)


def reads(settings: Settings) -> Reads:
    """Every file that a run of `optimize` reads."""
    sources = settings.sources
    kept = () if settings.run.work_dir is None else workdir.own_files(settings.run.work_dir)
    return Reads(
        models=(settings.model,),
        samples=(*sources.data, *sources.calibration, *sources.train),
        others=(
            sources.preprocess,
            settings.limits.metric_name,
            settings.latency,
            settings.plan.plan,
            *settings.also_read,
            *kept,
        ),
    )
