"""The models of one run as they are deployed: float ones converted beside where they lie."""

from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from onnxcp.data.roles import Inputs
from onnxcp.data.samples import Batching, Samples
from onnxcp.graph import io
from onnxcp.optimization.settings import Settings
from onnxcp.progress import Progress
from onnxcp.quantization.convert import RANGED, converted, prepared
from onnxcp.quantization.precision import FLOAT32
from onnxcp.quantization.static import Prepared


@dataclass(frozen=True, slots=True, eq=False)
class Deployment:
    """How a run deploys models; `folder` is the run's."""

    settings: Settings
    inputs: Inputs
    folder: Path
    progress: Progress

    def deployed(self, path: Path) -> Path:
        """A model, in float, as it is deployed: itself, or converted once.

        Raises:
            DataError: samples that tell no ranges, or activations that are not finite.
            ModelError: a model that cannot be converted.
        """
        settings = self.settings
        if settings.precision == FLOAT32:
            return path
        if not self._twin(path).exists():
            made = converted(
                self._named(path),
                settings.precision,
                *self._ranged,
                settings.target,
                raise_opset=settings.asked.target.raise_opset,
                progress=self.progress,
            )
            self.deploy(path, made)
        return self._twin(path)

    def deploy(self, path: Path, made: onnx.ModelProto) -> None:
        """Take a model for what one, in float, is deployed as."""
        twin = self._twin(path)
        twin.parent.mkdir(parents=True, exist_ok=True)
        io.save(made, twin)

    def prepared(self, path: Path) -> Prepared:
        """A model, in float, ready to become int8. Raises as `deployed` does."""
        return prepared(
            self._named(path),
            *self._ranged,
            raise_opset=self.settings.asked.target.raise_opset,
            progress=self.progress,
        )

    def _twin(self, path: Path) -> Path:
        parent = self.folder / "alone" if path == self.settings.model else path.parent
        return parent / self.settings.precision / self.settings.output.name

    def _named(self, path: Path) -> io.Model:
        """A model of the run's folder, under the name that messages give."""
        return replace(io.load(path), path=self.settings.model)

    @property
    def _ranged(self) -> tuple[Samples | None, Batching]:
        """What ranges of activations are taken from."""
        calibrating = self.inputs.calibration
        few = None if calibrating is None else calibrating.spaced(RANGED)
        return few, self.inputs.calibration_batching
