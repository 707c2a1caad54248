"""A rewritten model taught by the original: all that a training needs, made of two models.

Nothing here but what is imported inside functions needs PyTorch.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from onnxcp.data.named_function import named_function
from onnxcp.data.roles import Inputs
from onnxcp.data.samples import Samples
from onnxcp.errors import DataError, MissingPackage, ProviderError, SurgeryError, UsageError
from onnxcp.graph import io, passes, provenance
from onnxcp.graph.operators import operator
from onnxcp.graph.shapes import infer
from onnxcp.graph.shortcuts import as_in
from onnxcp.graph.splice import only
from onnxcp.graph.structure import changes
from onnxcp.graph.weights import rank_one, trainable
from onnxcp.measure.judged_outputs import find
from onnxcp.progress import Progress, silent
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner
from onnxcp.storage import temporary
from onnxcp.verification import surgery
from onnxcp.verification.surgery import Surgery

if TYPE_CHECKING:
    from onnxcp.torchgraph.module import Network
    from onnxcp.training.loop import Trained, UserLoss
    from onnxcp.training.recipe import Recipe

FEWEST = 32
ON_CPU = Target.named("cpu")


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """What a training came to. `samples` counts those that trained and those held out to choose
    weights by; `parity` is how far torch's outputs were from the runtime's before the first
    step, relative L2."""

    trained: "Trained"
    recipe: "Recipe"
    samples: Mapping[str, int]
    parity: float


def teach(
    model: io.Model,
    other: io.Model,
    inputs: Inputs,
    recipe: "Recipe",
    *,
    folder: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> Taught:
    """Train a rewritten model, `other`, to give what `model` gives, on the inputs' samples to
    train on. With a `folder` a killed training leaves there what another one goes on from.

    Raises:
        DataError: too few samples, or none with labels where the loss needs them.
        OnnxcpError: an operator that torch can not compute here; outputs that differ from the
            runtime's; too little memory.
        UsageError: options that name nothing.
        WorkError: the folder is of another training.
    """
    from onnxcp.torchgraph.module import Network
    from onnxcp.training.loop import Lesson, train

    training, held = enough(inputs, recipe)
    watched = replaced_outputs(model.proto, other.proto) if recipe.feature_weight else ()
    names = find(model, ON_CPU, inputs.distinct_feeds).names
    model, other = judged_part(model, names), judged_part(other, names)
    made = {name for node in other.proto.graph.node for name in node.output}
    network, parity = _student(other, inputs, recipe)
    lesson = Lesson(
        network=network,
        teacher=Network(model.proto, ()).to(recipe.device),
        training=training,
        held=held,
        recipe=recipe,
        soft=gives_probabilities(model),
        fixed=inputs.batching.size if inputs.batching.fixed else None,
        chains=rank_one(other.proto),
        watched=tuple(name for name in watched if name in made),
        user_loss=user_loss(recipe.loss),
        folder=folder,
        about=f"{other.sha256}|{training.source}|{len(training)}",
        progress=progress,
    )
    counts = {"train": len(training), "held_out": len(held)}
    trained = train(lesson, resume=resume)
    used = replace(recipe, learning_rate=trained.learning_rate)
    return Taught(trained, used, counts, parity)


def checked_surgery(
    model: io.Model, trained: Path, inputs: Inputs, target: Target, progress: Progress = silent
) -> Surgery:
    """The surgery of a trained model, which training must have left as right as it was.

    Raises:
        SurgeryError: its chains do not compute what they stand for.
    """
    found = surgery.check(model, io.load(trained), inputs, target.exact, progress=progress)
    if not found.ok:
        raise SurgeryError(
            f"{model.path}: after training {found.failures[0]}; nothing was written; this is a "
            "bug in onnxcp: please report it with the model"
        )
    return found


def refuse_without_torch() -> None:
    """Raises MissingPackage with the command that installs it."""
    if importlib.util.find_spec("torch") is None:
        raise MissingPackage("fine-tuning needs PyTorch: pip install 'onnxcp[finetune]'")


def refuse_without_device(device: str) -> None:
    """Raises ProviderError where PyTorch has no such device."""
    from onnxcp.training.loop import has_device

    if not has_device(device):
        raise ProviderError(
            f"<<device={device}>>: PyTorch finds no CUDA device; check the driver (nvidia-smi) and "
            "that torch is a CUDA build, or leave it out to train on the CPU"
        )


def refuse(model: io.Model, inputs: Inputs, recipe: "Recipe") -> None:
    """What `teach` would raise for any rewritten form of a model, before anything is spent."""
    from onnxcp.torchgraph.module import Network

    refuse_without_device(recipe.device)
    enough(inputs, recipe)
    user_loss(recipe.loss)
    Network(judged_part(model, find(model, ON_CPU, inputs.distinct_feeds).names).proto, ())


def judged_part(model: io.Model, names: Sequence[str]) -> io.Model:
    """The part of a model that computes the judged tensors: what follows them is not trained."""
    if list(names) == [output.name for output in model.proto.graph.output]:
        return model
    return replace(model, proto=only(model.proto, *names))


def enough(inputs: Inputs, recipe: "Recipe") -> tuple[Samples, Samples]:
    """The samples to train on, and those that choose the weights.

    Raises:
        DataError: too few.
        UsageError: none, or none with labels where the loss needs them; or a model that takes
            too few at once to measure statistics on.
    """
    training, held = inputs.training, inputs.validation
    if training is None or held is None:
        raise UsageError(
            "there are no samples to train on: give <<train>>, or <<calibration>>, or more <<data>>"
        )
    fewest = max(FEWEST, recipe.batch_size)
    if len(training) + len(held) < fewest:
        raise DataError(
            f"{training.source}: {len(training) + len(held)} samples are too few to train on; "
            f"give at least {fewest}, or a smaller <<batch_size>>"
        )
    if recipe.label_weight and training.labels is None:
        raise UsageError(
            f"<<label_weight={recipe.label_weight:g}>>: {training.source} has no labels; leave it "
            "out"
        )
    if inputs.batching.fixed and recipe.batch_norm != "frozen":
        raise UsageError(
            f"<<batch_norm={recipe.batch_norm}>>: the model takes {inputs.batching.size} samples "
            "at once, too few to measure statistics on; leave it out"
        )
    return training, held


def _student(other: io.Model, inputs: Inputs, recipe: "Recipe") -> tuple["Network", float]:
    """The candidate as a torch module, and how far its outputs are from the runtime's.

    Raises:
        ParityError: too far.
    """
    from onnxcp.torchgraph.module import Network
    from onnxcp.torchgraph.parity import check_parity

    network = Network(other.proto, trainable(other.proto, recipe.weights))
    half = any(t.data_type == onnx.TensorProto.FLOAT16 for t in other.proto.graph.initializer)
    tolerance = ON_CPU.tolerance(np.dtype(np.float16 if half else np.float32))
    with temporary.folder() as where:
        path = where / other.path.name
        io.save(other.proto, path, other.external)
        runner = open_runner(path, ON_CPU)
    parity = check_parity(network, runner, inputs.surgery_feeds[0], tolerance)
    return network.to(recipe.device), parity


def replaced_outputs(proto: onnx.ModelProto, other: onnx.ModelProto) -> tuple[str, ...]:
    """What the replaced layers gave, which the chains give now under the same names."""
    made, shapes = provenance.read(other), infer(proto, {})
    before = as_in(passes.as_in(proto, other, shapes), other)
    return tuple(node.output[0] for node in changes(before, other, made.sites).replaced)


def user_loss(name: str | None) -> "UserLoss | None":
    """The function of `module:function`. Raises UsageError where there is none."""
    return None if name is None else named_function("loss", name)


def gives_probabilities(model: io.Model) -> bool:
    first = model.proto.graph.output[0].name
    return any(operator(n) == "Softmax" and first in n.output for n in model.proto.graph.node)
