"""Training of the models that one run of `optimize` makes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcp.errors import UsageError
from onnxcp.graph import io
from onnxcp.graph.weights import with_weights
from onnxcp.measure.evaluator import Referee, unjudged
from onnxcp.optimization.job import Job
from onnxcp.optimization.outcome import Outcome, Recovered
from onnxcp.optimization.self_check import checked
from onnxcp.quantization.precision import INT8
from onnxcp.training.distill import Distilled, distill, refuse
from onnxcp.training.qat import distill_int8

if TYPE_CHECKING:
    from onnxcp.training.recipe import Recipe

ROUNDING = 4  # a training that rounds, after one in float, has this part of its epochs


@dataclass(frozen=True, slots=True, eq=False)
class School:
    """How models of a run are trained."""

    job: Job
    recipe: "Recipe"

    def trained(self, staged: Path, epochs: int) -> tuple[Path, Distilled]:
        """The model that training makes of one that is staged. A folder for work keeps what a
        killed run goes on from."""
        job, name = self.job, f"{staged.parent.name}-{epochs}"
        other, folder = io.load(staged), self._folder(name)
        taught = distill(
            job.model,
            other,
            job.inputs,
            replace(self.recipe, epochs=epochs),
            folder=folder,
            resume=folder is not None,
            progress=job.progress,
        )
        path = job.folder / f"trained-{name}" / staged.name
        path.parent.mkdir(exist_ok=True)
        io.save(with_weights(other.proto, taught.trained.weights), path, other.external)
        return path, taught

    def finished(self, fitted: Outcome, referee: Referee) -> Outcome:
        """The outcome of a plan that is fitted in full, after all epochs; int8 is trained some
        more, as it rounds.

        Raises:
            SurgeryError: its chains do not compute what they stand for.
        """
        assert fitted.staged is not None and fitted.accuracy is not None
        job = self.job
        path, taught = self.trained(fitted.staged, self.recipe.epochs)
        rounded = self._rehearsed(path, taught) if fitted.precision == INT8 else None
        proof = checked(job, path, "after training ")
        accuracy = referee.judge(job.judged(job.deployed(path)))
        if fitted.accuracy.budget is None:
            accuracy = unjudged(accuracy)
        chained = None if fitted.chained is None else referee.judge(job.judged(path))
        return replace(
            fitted,
            accuracy=accuracy,
            chained=chained,
            verification=proof.verification,
            staged=path,
            recovered=Recovered(taught, fitted.accuracy, proof.kernel_errors, rounded=rounded),
        )

    def _rehearsed(self, path: Path, taught: Distilled) -> Distilled:
        """Train the int8 model of one that was trained in float, and deploy it."""
        job, epochs = self.job, -(-self.recipe.epochs // ROUNDING)
        folder = self._folder(f"{path.parent.name}-{INT8}")
        made, rounded = distill_int8(
            job.model,
            job.deployment.prepared(path),
            job.inputs,
            replace(self.recipe, epochs=epochs, feature_weight=0.0),
            irreducible_loss=taught.trained.epochs[taught.trained.best].held_out,
            folder=folder,
            resume=folder is not None,
            progress=job.progress,
        )
        job.deployment.deploy(path, made.deployed())
        return rounded

    def _folder(self, name: str) -> Path | None:
        """Where a training leaves what it goes on from; None where nothing is kept."""
        if self.job.settings.run.work_dir is None:
            return None
        folder = self.job.settings.run.work_dir / "trained" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def school(job: Job) -> School | None:
    """How the run's models are trained, where that was asked for.

    Raises:
        DataError: too few samples to train on.
        OnnxcpError: a device or an operator that PyTorch does not have here.
        UsageError: there is nothing to train on.
    """
    recipe = job.settings.training
    if recipe is None:
        return None
    if job.settings.precision == INT8 and job.outputs.notes:
        raise UsageError(
            f"<<finetune>> with <<precision=int8>>: {job.outputs.notes[0]}, which training in int8 "
            "does not know; finetune the float32 model first, then make it int8"
        )
    refuse(job.model, job.inputs, recipe)
    return School(job, recipe)
