"""The models that a run makes: with the chains of a plan, in float and as they are deployed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from onnxcp import __version__
from onnxcp.chain import Chain
from onnxcp.data import recorded_roles
from onnxcp.data.roles import Inputs
from onnxcp.fitting.fits import FULL, Fits
from onnxcp.fitting.plan_chains import Chains
from onnxcp.fitting.sequential import Calibration, refine
from onnxcp.forms import Effort
from onnxcp.graph import io, provenance
from onnxcp.graph.sites import Site
from onnxcp.graph.splice import rewrite
from onnxcp.optimization.settings import Settings
from onnxcp.plan import Plan, Recipe
from onnxcp.progress import Progress
from onnxcp.quantization.convert import RANGED, Deployer
from onnxcp.quantization.precision import FLOAT32
from onnxcp.quantization.static import Prepared


@dataclass(frozen=True, slots=True, eq=False)
class Builder:
    """Builds models in a run's folder, each once."""

    settings: Settings
    model: io.Model
    sites: tuple[Site, ...]
    inputs: Inputs
    fits: Fits
    folder: Path
    progress: Progress

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
    def deployer(self) -> Deployer:
        """What makes of float models those that are deployed."""
        calibrating = self.inputs.calibration
        return Deployer(
            self.settings.precision,
            self.settings.target,
            None if calibrating is None else calibrating.spaced(RANGED),
            self.inputs.calibration_batching,
            self.settings.asked.target.raise_opset,
            self.progress,
        )

    def deployed(self, path: Path) -> Path:
        """A model, in float, as it is deployed: itself, or converted once.

        Raises:
            DataError: samples that tell no ranges, or activations that are not finite.
            ModelError: a model that cannot be converted.
        """
        if self.settings.precision == FLOAT32:
            return path
        if not self._twin(path).exists():
            self.deploy(path, self.deployer.converted(self._named(path)))
        return self._twin(path)

    def deploy(self, path: Path, made: onnx.ModelProto) -> None:
        """Take a model for what one, in float, is deployed as."""
        twin = self._twin(path)
        twin.parent.mkdir(parents=True, exist_ok=True)
        io.save(made, twin)

    def prepared(self, path: Path) -> Prepared:
        """A model, in float, ready to become int8. Raises as `deployed` does."""
        return self.deployer.prepared(self._named(path))

    def _twin(self, path: Path) -> Path:
        parent = self.folder / "alone" if path == self.settings.model else path.parent
        return parent / self.settings.precision / self.settings.output.name

    def _named(self, path: Path) -> io.Model:
        """A model of the run's folder, under the name that messages give."""
        return replace(io.load(path), path=self.settings.model)
