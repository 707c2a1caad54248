"""Training of the models that one run of `optimize` makes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcp.errors import UsageError
from onnxcp.graph import io
from onnxcp.graph.weights import with_weights
from onnxcp.measure.evaluator import Referee, unjudged
from onnxcp.optimization.outcome import Outcome, Recovered
from onnxcp.optimization.run import Run
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

    run: Run
    recipe: "Recipe"

    def trained(self, staged: Path, epochs: int) -> tuple[Path, Distilled]:
        """The model that training makes of one that is staged. A folder for work keeps what a
        killed run goes on from."""
        run, name = self.run, f"{staged.parent.name}-{epochs}"
        other, folder = io.load(staged), self._folder(name)
        taught = distill(
            run.model,
            other,
            run.inputs,
            replace(self.recipe, epochs=epochs),
            folder=folder,
            resume=folder is not None,
            progress=run.progress,
        )
        path = run.folder / f"trained-{name}" / staged.name
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
        run = self.run
        path, taught = self.trained(fitted.staged, self.recipe.epochs)
        rounded = self._rehearsed(path, taught) if fitted.precision == INT8 else None
        proof = checked(run, path, "after training ")
        accuracy = referee.judge(run.judged(run.builder.deployed(path)))
        if fitted.accuracy.budget is None:
            accuracy = unjudged(accuracy)
        chained = None if fitted.chained is None else referee.judge(run.judged(path))
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
        run, epochs = self.run, -(-self.recipe.epochs // ROUNDING)
        folder = self._folder(f"{path.parent.name}-{INT8}")
        made, rounded = distill_int8(
            run.model,
            run.builder.prepared(path),
            run.inputs,
            replace(self.recipe, epochs=epochs, feature_weight=0.0),
            irreducible_loss=taught.trained.epochs[taught.trained.best].held_out,
            folder=folder,
            resume=folder is not None,
            progress=run.progress,
        )
        run.builder.deploy(path, made.deployed())
        return rounded

    def _folder(self, name: str) -> Path | None:
        """Where a training leaves what it goes on from; None where nothing is kept."""
        if self.run.settings.run.work_dir is None:
            return None
        folder = self.run.settings.run.work_dir / "trained" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def school(run: Run) -> School | None:
    """How the run's models are trained, where that was asked for.

    Raises:
        DataError: too few samples to train on.
        OnnxcpError: a device or an operator that PyTorch does not have here.
        UsageError: there is nothing to train on.
    """
    recipe = run.settings.training
    if recipe is None:
        return None
    if run.settings.precision == INT8 and run.outputs.notes:
        raise UsageError(
            f"<<finetune>> with <<precision=int8>>: {run.outputs.notes[0]}, which training in int8 "
            "does not know; finetune the float32 model first, then make it int8"
        )
    refuse(run.model, run.inputs, recipe)
    return School(run, recipe)
