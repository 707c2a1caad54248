"""One run of `optimize`: what it was given and what it has, all of it settled when it begins."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from onnxcp.data.roles import Inputs
from onnxcp.fitting.fits import Fits
from onnxcp.graph import io
from onnxcp.graph.sites import Site, Skip
from onnxcp.latency.table import Table
from onnxcp.measure.by_sample import Outputs
from onnxcp.measure.distributed_accuracy import Spread
from onnxcp.measure.judged_outputs import Judged
from onnxcp.measure.time_budget import TimeBudget
from onnxcp.optimization.build import Builder
from onnxcp.optimization.settings import Settings
from onnxcp.plan import Recipe
from onnxcp.progress import Progress
from onnxcp.results import BaselineRecord
from onnxcp.runtime.sessions import Runner, open_runner


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One run of `optimize`: its settings, model, sites and samples.

    What it builds and fits lies in its folder and in `fits`, which every run of the same model in
    another precision shares.
    """

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

    def in_precision(self, precision: str) -> "Run":
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
        wanted = [s for s in self.sites if matches(s.name, include)]
        return tuple(s for s in wanted if not matches(s.name, exclude))

    @property
    def runs_here(self) -> bool:
        """Whether this machine has the provider that ranks are chosen for."""
        return self.table is None or self.table.provider == self.settings.target.name

    @property
    def sample_roles(self) -> dict[str, Any] | None:
        """What the samples of `data` do in this run; None without data."""
        return None if self.inputs.roles is None else self.inputs.roles.record()

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

    @property
    def builder(self) -> Builder:
        """What builds the models of this run."""
        given = (self.settings, self.model, self.sites, self.inputs)
        return Builder(*given, self.fits, self.folder, self.progress)

    @property
    def recipe(self) -> Recipe:
        """How the fits of this run were made."""
        return self.builder.recipe


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the globs means a name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
