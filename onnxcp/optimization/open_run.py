"""Opening a run: everything that it needs is loaded and checked before anything is measured."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase

from onnxcp.cluster.pool import Cluster, open_cluster
from onnxcp.cluster.processes import processes
from onnxcp.data.roles import Inputs, Sources, prepare
from onnxcp.data.split import from_record
from onnxcp.errors import TableError, UsageError
from onnxcp.fitting.fits import Fits
from onnxcp.forms.solvers.device import named
from onnxcp.graph import io, subnormals
from onnxcp.latency.shortcut_timing import straight, straightened
from onnxcp.latency.table import Table, from_file
from onnxcp.measure import judged_outputs as judged
from onnxcp.measure.distributed_accuracy import Spread
from onnxcp.measure.judged_outputs import Judged
from onnxcp.measure.original_check import check_original, original_of
from onnxcp.measure.time_budget import TimeBudget
from onnxcp.optimization.run import Run
from onnxcp.optimization.settings import Settings
from onnxcp.plan import refuse_another_source, samples_of
from onnxcp.progress import Progress
from onnxcp.quantization.precision import FLOAT32, INT8, refuse_unfit
from onnxcp.quantization.static import enough
from onnxcp.runtime.ort import available
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner
from onnxcp.runtime.survey import survey
from onnxcp.storage import cache, temporary
from onnxcp.storage.workdir import open_folder


def _on_target_of(settings: Settings, found: Table) -> Settings:
    """The settings with the target that a table was measured on; with this machine's CPU
    where the provider is not to be had here.

    Raises:
        TableError: options that name another target.
    """
    asked, wanted = settings.target, found.target
    if asked.threads and asked.threads != wanted.count:
        raise TableError(
            f"{settings.latency}: was measured with {wanted.count} threads, <<threads>> "
            f"says {asked.threads}; leave it out, or make the table again"
        )
    if found.precision != settings.precision:
        raise TableError(
            f"{settings.latency}: its times are of {found.precision}; give "
            f"<<precision={found.precision}>>, or make it again with "
            f"<<precision={settings.precision}>>"
        )
    if asked.name not in ("cpu", wanted.name) or (
        asked.options and dict(asked.options) != dict(wanted.options)
    ):
        raise TableError(
            f"{settings.latency}: was measured on {wanted.name} with options "
            f"{dict(wanted.options)}; leave <<provider>> and <<provider_option>> out"
        )
    if wanted.provider.ort_name not in available():
        return replace(settings, target=Target.named("cpu", wanted.count))
    return replace(settings, target=wanted)


def _straightened(
    model: io.Model, inputs: Inputs, settings: Settings, table: Table | None, progress: Progress
) -> io.Model:
    """The model that chains are put into: by a plan or a table that is given, or by measurement.

    Raises:
        PlanError: shortcuts are named that it does not have.
    """
    if settings.plan.plan is not None:
        return straight(model, inputs, settings.recipe.shortcuts)
    if table is not None:
        return straight(model, inputs, table.shortcuts)
    how = (settings.target, settings.precision)
    return straightened(model, inputs, *how, kept_in=settings.kept_in, progress=progress)


def _sources(settings: Settings) -> Sources:
    """What to feed; a plan that is replayed gives samples the roles they had.

    Raises:
        PlanError: the roles in a plan are not what a run notes.
    """
    noted = None if settings.plan.plan is None else samples_of(settings.plan.plan)
    return replace(
        settings.sources,
        hold_out=not settings.plan.is_forced,
        trains=settings.training is not None,
        roles=None if noted is None else from_record(noted),
    )


@contextmanager
def open_run(
    settings: Settings, progress: Progress, time: TimeBudget | None = None
) -> Iterator[Run]:
    """Load and check everything a run needs; its folder is gone when the block ends."""
    time = time or TimeBudget()
    progress = time.watched(progress)
    named(settings.fit.fit_device)
    model = io.load(settings.model)
    subnormals.refuse(settings.model, model.proto)
    if settings.plan.plan is not None:
        refuse_another_source(settings.plan.plan, model.sha256, settings.model)
    table = None if settings.latency is None else from_file(settings.latency)
    if table is not None:
        settings = _on_target_of(settings, table)
    with (
        _work_folder(settings, model) as settings,
        _opened(settings, model, table, progress, time) as run,
    ):
        yield run


@contextmanager
def _work_folder(settings: Settings, model: io.Model) -> Iterator[Settings]:
    """The settings by which all is kept in the work folder, which is this run's until the block
    ends; as they are without one."""
    if settings.run.work_dir is None:
        yield settings
        return
    with open_folder(settings.run.work_dir, model.sha256, resume=settings.run.resume):
        yield replace(settings, kept_in=settings.run.work_dir / "kept")


@contextmanager
def _opened(
    settings: Settings,
    model: io.Model,
    table: Table | None,
    progress: Progress,
    time: TimeBudget,
) -> Iterator[Run]:
    inputs = prepare(model.inputs, _sources(settings))
    runner = open_runner(settings.model, settings.target)  # what it refuses is said now
    if settings.precision == INT8:
        refuse_unfit(model.proto, str(model.path), raise_opset=settings.asked.target.raise_opset)
        enough(inputs.calibration, inputs.calibration_batching)
    known = original_of(model, runner, inputs, settings.sources, settings.target, settings.limits)
    baseline = check_original(known, accept=settings.limits.accept_baseline, progress=progress)
    model = _straightened(model, inputs, settings, table, progress)
    sites, skips = survey(model, inputs.shapes, settings.target, inputs.timed_feeds)
    is_run = bool(sites) or settings.precision != FLOAT32
    outputs = _judged(model, inputs, settings) if is_run else Judged((), ())
    for pattern in (*settings.plan.include, *settings.plan.exclude):
        if not any(fnmatchcase(s.name, pattern) for s in sites):
            raise UsageError(
                f"<<include>>/<<exclude={pattern!r}>>: matches no site; `onnxcp inspect` lists them"
            )
    with (
        temporary.folder(settings.output.parent) as folder,
        _workers(settings) as (workers, cluster),
    ):
        by_name = {s.name: s for s in sites}
        seed, device = settings.recipe.seed, settings.fit.fit_device
        fits = Fits(by_name, seed, workers, settings.kept_in, device, cluster)
        spread = None if cluster is None else Spread(cluster, settings.target)
        fits.drafts = settings.recipe.drafts
        yield Run(
            settings,
            model,
            sites,
            skips,
            inputs,
            outputs,
            fits,
            folder,
            progress,
            table,
            spread,
            baseline,
            time,
        )
    if settings.kept_in is not None and settings.run.work_dir is None:
        cache.prune(settings.kept_in)


def _judged(model: io.Model, inputs: Inputs, settings: Settings) -> Judged:
    found = judged.find(model, settings.target.unhurried, inputs.distinct_feeds)
    return replace(found, is_whole=settings.limits.is_whole)


@contextmanager
def _workers(settings: Settings) -> Iterator[tuple[Executor | None, Cluster | None]]:
    """What fits: processes of this machine, or threads that have it done by a cluster."""
    if settings.fit.cluster is None:
        with processes(settings.jobs if settings.fit.fit_device == "cpu" else 1) as workers:
            yield workers, None
    else:
        with open_cluster(settings.fit.cluster) as found:
            yield found.executor, found
