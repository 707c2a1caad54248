"""One run of `optimize`: everything asked of it more than once."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from onnxcp import __version__
from onnxcp.chain import Chain
from onnxcp.cluster.pool import Cluster, open_cluster
from onnxcp.cluster.processes import processes
from onnxcp.data import recorded_roles
from onnxcp.data.roles import Inputs, Sources, prepare
from onnxcp.data.split import from_record
from onnxcp.errors import PlanError, TableError, UsageError
from onnxcp.fitting import choices
from onnxcp.fitting.calibrate import calibrate
from onnxcp.fitting.fits import FULL, Fits
from onnxcp.fitting.plan_chains import Chains
from onnxcp.fitting.sequential import Calibration, refine
from onnxcp.fitting.statistics import Statistics
from onnxcp.forms import FORMS, Effort
from onnxcp.forms.solvers.device import named
from onnxcp.graph import io, provenance, subnormals
from onnxcp.graph.sites import Site, Skip
from onnxcp.graph.splice import rewrite
from onnxcp.latency.candidates import Pace
from onnxcp.latency.context import Context
from onnxcp.latency.shortcut_timing import straight, straightened
from onnxcp.latency.table import Table, from_document, from_file, to_document
from onnxcp.latency.tabulate import identity, tabulate
from onnxcp.measure import judged_outputs as judged
from onnxcp.measure.adaptive_turns import LEAST, SECONDS
from onnxcp.measure.by_sample import Outputs
from onnxcp.measure.distributed_accuracy import Spread
from onnxcp.measure.judged_outputs import Judged
from onnxcp.measure.original_check import check_original, original_of
from onnxcp.measure.time_budget import TimeBudget, now
from onnxcp.optimization.deployed_models import Deployment
from onnxcp.optimization.settings import Settings
from onnxcp.plan import (
    Choice,
    Plan,
    Recipe,
    forced_ranks,
    from_json,
    refuse_another_source,
    samples_of,
)
from onnxcp.progress import Progress
from onnxcp.quantization.precision import FLOAT32, INT8, refuse_unfit
from onnxcp.quantization.static import enough
from onnxcp.results import BaselineRecord
from onnxcp.runtime.ort import available
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import Runner, open_runner
from onnxcp.runtime.survey import survey
from onnxcp.storage import cache, temporary
from onnxcp.storage.workdir import open_folder

CONTEXT = 1.3 * SECONDS  # for one context, its sessions included: a heuristic
HURRIED_OCTAVE = 1  # candidate ranks from one to its double
FEW, WORTH = 4, 2  # calibration samples that tell how long others take; how often as many pay


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One run of `optimize`: its settings, model, samples, and what it has measured so far."""

    settings: Settings
    model: io.Model
    sites: tuple[Site, ...]
    skips: tuple[Skip, ...]
    inputs: Inputs
    outputs: Judged
    fits: Fits
    folder: Path
    progress: Progress
    table: Table | None = None  # given by the option `latency`
    spread: Spread | None = None
    baseline: BaselineRecord = field(default_factory=BaselineRecord)
    time: TimeBudget = field(default_factory=TimeBudget)

    def in_precision(self, precision: str) -> "Job":
        """The same run, its fits and its folder too, for models of another precision."""
        if precision == self.settings.precision:
            return self
        return replace(self, settings=replace(self.settings, precision=precision), table=None)

    @property
    def parallel(self) -> int:
        """How many fits run at once."""
        return self.settings.jobs if self.spread is None else self.spread.cluster.threads

    @property
    def kept_in(self) -> Path | None:
        """The folder of what outlives the run: fits, scores, latency tables."""
        return self.settings.kept_in

    @property
    def journal(self) -> Path | None:
        """The file in which a search notes its trials."""
        return (
            None
            if self.settings.run.work_dir is None
            else self.settings.run.work_dir / "trials.log"
        )

    @property
    def remedy(self) -> str:
        """What to try, behind "raise the time budget"."""
        if self.settings.run.work_dir is None:
            return ""
        return f", or go on with <<work_dir={self.settings.run.work_dir}>> <<resume>>"

    @property
    def chosen(self) -> tuple[Site, ...]:
        """Sites that `include` and `exclude` leave."""
        include, exclude = self.settings.plan.include or ("*",), self.settings.plan.exclude
        wanted = [s for s in self.sites if _matches(s.name, include)]
        return tuple(s for s in wanted if not _matches(s.name, exclude))

    def forced(self) -> dict[str, list[Choice]]:
        """The choices that a plan or rules give to sites: several forms where none is named.

        Raises:
            PlanError: a rule or a plan names what the model does not have.
        """
        sites = {s.name: s for s in self.sites}
        if self.settings.plan.plan is not None:
            plan, _ = from_json(self.settings.plan.plan)
            is_int8 = self.settings.precision == INT8
            asked = {n: [c if is_int8 else c.plain] for n, c in plan.choices.items()}
        elif self.settings.plan.rank and self.sites:
            channels = {s.name: s.shape[0] for s in self.chosen}
            most = {s.name: max(self._largest(s).values(), default=0) for s in self.chosen}
            groups = {s.name: s.group for s in self.chosen}
            block = self.settings.target.block
            ranks = forced_ranks(self.settings.plan.rank, channels, block, most, groups)
            asked = {name: self._forced(sites[name], rank) for name, rank in ranks.items()}
        else:
            return {}
        for name, made in asked.items():
            for choice in made:
                choices.check(sites, name, choice)
        return {name: made for name, made in asked.items() if made}

    def _forced(self, site: Site, rank: int) -> list[Choice]:
        """A rank in every form that takes the kernel and has a use for the rank; where none
        has, in all that take it, to be refused with the reason."""
        largest = self._largest(site)
        able = [form for form, most in largest.items() if rank <= most]
        return [Choice(form, rank) for form in able or largest]

    def _largest(self, site: Site) -> dict[str, int]:
        """The largest rank of every form that takes a site's kernel."""
        forms = [f for f in self.settings.forms if FORMS[f].refuses(site.part) is None]
        return {form: choices.largest_rank(site, form) for form in forms}

    def built(self, plan: Plan, effort: Effort = FULL, refits: int = 0) -> Path:
        """Where the model that a plan makes lies, once it is built; `refits` of its chains are
        fitted in sequence."""
        folder = self.folder / f"{plan.sha256[:16]}-{effort.sweeps}-{refits}"
        return folder / self.settings.output.name

    def build(self, plan: Plan, effort: Effort = FULL) -> Path:
        """Write the model that a plan makes into the run's folder."""
        path = self.built(plan, effort)
        if not path.exists():
            self.build_of(self.fits.chains(plan, effort), path)
        return path

    def build_of(self, chains: Chains, path: Path | None = None) -> Path:
        """The same of chains that are there, fitted in full where no path is given."""
        path = path or self.built(chains.plan, refits=len(chains.refits))
        if not path.exists():
            path.parent.mkdir()
            self.write(path, chains.plan, chains.by_site)
        return path

    def chains(self, plan: Plan) -> Chains:
        """The chains of a plan, fitted in full; in sequence where that was asked for and there
        are calibration samples."""
        chains, samples = self.fits.chains(plan), self.inputs.calibration
        if not self.settings.recipe.sequential or samples is None or self.fits.samples is None:
            return chains
        calibration = Calibration(
            self.model,
            self.sites,
            samples,
            self.inputs.calibration_batching,
            self.settings.target,
            self.recipe,
            self.folder,
            self.progress,
        )
        return refine(calibration, self.fits, chains)

    def write(self, path: Path, plan: Plan, chains: Mapping[str, Chain]) -> None:
        """Write the model that some chains of a plan make, with what is noted of them."""
        made = rewrite(
            self.model.proto,
            chains,
            self.sites,
            metadata=self._metadata(plan, chains),
            external=self.model.external,
        )
        io.save(made.proto, path, made.external)

    def latency_table(self, found: Sequence[Context]) -> Table:
        """The table given; else that of an earlier run on this machine; else a new one."""
        if self.table is not None:
            return self.table
        settings, forms = self.settings, self.settings.forms
        pace = self.pace(found)
        about = (settings.target, forms, settings.precision, pace.octave)
        key = identity(self.model, found, self.inputs, *about)
        known = None if self.kept_in is None else cache.load_note(self.kept_in, key)
        if known is not None:
            return from_document(known)
        sites, target = self.chosen, settings.target
        how = (target, forms, settings.precision, settings.run.seed)
        made = tabulate(self.model, sites, found, self.inputs, *how, self.progress, pace)
        is_whole = all(context.key in made.rows for context in found)
        if self.kept_in is not None and is_whole and not made.is_busy:
            cache.save_note(self.kept_in, key, to_document(made))
        return made

    def pace(self, found: Sequence[Context], by: float | None = None) -> Pace:
        """How thoroughly there is time to measure, till a time on the clock of `time_budget` or
        in the share of the stage."""

        def end() -> float:
            return self.time.end_of("timing") if by is None else by

        last = self.time.timing_end_at_last if by is None else by
        count, left = len({context.key for context in found}), end() - now()
        if count * CONTEXT <= left:
            return Pace(end=end, last=last)
        return Pace(HURRIED_OCTAVE, max(LEAST, left / count), end, last)

    @property
    def runs_here(self) -> bool:
        """Whether this machine has the provider that ranks are chosen for."""
        return self.table is None or self.table.provider == self.settings.target.name

    def calibrate(self, names: Collection[str]) -> None:
        """Fit what is named in the norm of its real inputs, where there are calibration data; what
        is known already stays.

        Raises:
            DataError: activations that are NaN or infinite.
            PlanError: a replayed plan was made with other samples.
            UsageError: a memory limit that cannot be kept.
        """
        known = self.fits.knows
        sites = [s for s in self.sites if s.name in names or known(s)]
        replayed = None if self.settings.plan.plan is None else self.settings.recipe
        if all(map(known, sites)) or (replayed is not None and replayed.calibration is None):
            return
        inputs = self.inputs
        if replayed is not None and replayed.calibration_samples:
            inputs = _fewer(inputs, replayed.calibration_samples)
        if self.time.is_limited and replayed is None and inputs.calibration is not None:
            inputs, found, samples = self._in_time(sites, len(inputs.calibration))
        else:
            found, samples = self._statistics(sites, inputs)
        if replayed is not None and samples != replayed.calibration:
            raise PlanError(
                f"{self.settings.plan.plan}: the plan's fits were made with other calibration "
                "samples; pass the <<data>>, <<calibration>> and <<preprocess>> of the run "
                "that wrote it"
            )
        is_all = inputs is self.inputs or inputs.calibration is None
        self.fits.learn(found, samples, 0 if is_all else len(inputs.calibration or ()))

    def _in_time(
        self, sites: Sequence[Site], count: int
    ) -> tuple[Inputs, dict[str, Statistics], str | None]:
        """The statistics of as many samples as there is time for, which a few of them tell."""
        end, begun, few = self.time.end_of("calibration"), now(), _fewer(self.inputs, FEW)
        found, samples = self._statistics(sites, few)
        took = now() - begun
        affordable = min(count, int(FEW * (end - now()) / max(took, 1e-9)))
        if affordable < WORTH * FEW or count <= FEW:
            return few, found, samples
        inputs = _fewer(self.inputs, affordable)
        return inputs, *self._statistics(sites, inputs)

    def _statistics(
        self, sites: Sequence[Site], inputs: Inputs
    ) -> tuple[dict[str, Statistics], str | None]:
        return calibrate(
            self.model,
            sites,
            inputs,
            self.settings.target,
            self.folder,
            among=self.sites,
            correct_bias=self.settings.recipe.correct_bias,
            memory=self.settings.recipe.memory,
            seed=self.settings.recipe.seed,
            kept_in=self.settings.run.work_dir,
            progress=self.progress,
        )

    @property
    def sample_roles(self) -> dict[str, Any] | None:
        """What the samples of `data` do in this run; None without data."""
        return None if self.inputs.roles is None else self.inputs.roles.record()

    @property
    def recipe(self) -> Recipe:
        """How the fits of this run were made."""
        return replace(
            self.settings.recipe,
            calibration=self.fits.samples,
            calibration_samples=self.fits.count,
            drafts=self.fits.drafts,
            precision=self.settings.precision,
            shortcuts=self.model.shortcuts,
        )

    def _metadata(self, plan: Plan, chains: Mapping[str, Chain]) -> dict[str, str]:
        kernels = {s.name: s.kernel for s in self.sites}
        records = {
            name: provenance.record(choice, chains[name], kernels[name])
            for name, choice in plan.choices.items()
        }
        return {
            "onnxcp.version": __version__,
            "onnxcp.plan_sha256": plan.sha256,
            **recorded_roles.entry(self.inputs.roles),
            **provenance.entries(self.model.sha256, provenance.read(self.model.proto), records),
        }

    @property
    def deployment(self) -> Deployment:
        """How this run deploys models."""
        return Deployment(self.settings, self.inputs, self.folder, self.progress)

    def deployed(self, path: Path) -> Path:
        """A model, in float, as the run deploys it."""
        return self.deployment.deployed(path)

    def judged_runner(self, path: Path) -> Runner:
        """A runner for outputs, whose time does not matter."""
        return open_runner(path, self.settings.target.unhurried)

    def judged(self, path: Path) -> Outputs:
        """What accuracy is taken of: a model that runs here or, with a cluster, there.

        Never there: another provider than the CPU, which the workers may lack; and a model
        with external data that we have not written, which may lie in any files.
        """
        foreign = path == self.model.path and self.model.external
        if self.spread is None or foreign or self.settings.target.name != "cpu":
            return self.outputs.opened(path, self.settings.target.unhurried)
        return self.spread.runner(self.outputs, path)


def _fewer(inputs: Inputs, count: int) -> Inputs:
    """With so many of the calibration samples, at equal distances; as they are where there are
    no more."""
    samples = inputs.calibration
    if samples is None or count >= len(samples):
        return inputs
    return replace(inputs, calibration=samples.spaced(count))


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


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
def open_job(
    settings: Settings, progress: Progress, time: TimeBudget | None = None
) -> Iterator[Job]:
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
        _opened(settings, model, table, progress, time) as job,
    ):
        yield job


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
) -> Iterator[Job]:
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
        yield Job(
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
