"""Distillation: the preparation of a training run from the original and the rewritten model.

The original is the teacher, the rewritten model the student. PyTorch is imported only inside
functions.
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
from onnxcp.errors import DataError, MissingPackage, ProviderError, UsageError
from onnxcp.graph import io, passes, provenance
from onnxcp.graph.index import made_names
from onnxcp.graph.operators import operator
from onnxcp.graph.shapes import Shapes, infer
from onnxcp.graph.shortcuts import as_in
from onnxcp.graph.splice import only
from onnxcp.graph.structure import changes
from onnxcp.graph.weights import rank_one, trainable
from onnxcp.measure.judged_outputs import find
from onnxcp.progress import Progress, silent
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner
from onnxcp.storage import temporary

if TYPE_CHECKING:
    from onnxcp.torchgraph.module import Network
    from onnxcp.training.loop import Trained, UserLoss
    from onnxcp.training.recipe import Recipe

MIN_TRAINING_SAMPLES = 32
ON_CPU = Target.named("cpu")


@dataclass(frozen=True, slots=True, eq=False)
class Distilled:
    """The result of a training run.

    `samples` counts those of the training set ("train") and of the validation set ("held_out").
    `parity` is the relative L2 difference between PyTorch's and ONNX Runtime's outputs before the
    first step.
    """

    trained: "Trained"
    recipe: "Recipe"
    samples: Mapping[str, int]
    parity: float


def distill(
    model: io.Model,
    other: io.Model,
    inputs: Inputs,
    recipe: "Recipe",
    *,
    folder: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> Distilled:
    """Train a rewritten model, `other`, to reproduce the outputs of `model` on the training set.

    With a `folder`, checkpoints are stored there, from which `resume` continues.

    Raises:
        DataError: there are too few samples.
        OnnxcpError: PyTorch cannot compute an operator, its outputs differ from ONNX Runtime's,
            or memory is too small.
        UsageError: the loss needs labels and there are none, or an option names nothing.
        WorkError: the folder holds another training.
    """
    from onnxcp.torchgraph.module import Network
    from onnxcp.training.loop import TrainingTask, train

    training, validation = training_sets(inputs, recipe)
    features: tuple[str, ...] = ()
    if recipe.feature_weight:
        features = replaced_outputs(model.proto, other.proto, inputs.shapes)
    names = find(model, ON_CPU, inputs.distinct_feeds).names
    model, other = judged_part(model, names), judged_part(other, names)
    tensors = made_names(other.proto.graph.node)
    network, parity = _student(other, inputs, recipe)
    task = TrainingTask(
        network=network,
        teacher=Network(model.proto, ()).to(recipe.device),
        training=training,
        validation=validation,
        recipe=recipe,
        gives_probabilities=gives_probabilities(model),
        fixed_batch=inputs.batching.size if inputs.batching.fixed else None,
        chains=rank_one(other.proto),
        features=tuple(name for name in features if name in tensors),
        user_loss=user_loss(recipe.loss),
        folder=folder,
        subject=f"{other.sha256}|{training.source}|{len(training)}",
        progress=progress,
    )
    counts = {"train": len(training), "held_out": len(validation)}
    trained = train(task, resume=resume)
    used = replace(recipe, learning_rate=trained.learning_rate)
    return Distilled(trained, used, counts, parity)


def refuse_without_torch() -> None:
    """Raises MissingPackage, with the command to install it, if PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise MissingPackage("fine-tuning needs PyTorch: pip install 'onnxcp[finetune]'")


def refuse_without_device(device: str) -> None:
    """Raises ProviderError if PyTorch has no such device."""
    from onnxcp.training.loop import has_device

    if not has_device(device):
        raise ProviderError(
            f"<<device={device}>>: PyTorch finds no CUDA device; check the driver (nvidia-smi) and "
            "that torch is a CUDA build, or leave it out to train on the CPU"
        )


def refuse(model: io.Model, inputs: Inputs, recipe: "Recipe") -> None:
    """Raises, before any work, what `distill` would raise for any rewritten form of a model."""
    from onnxcp.torchgraph.module import Network

    refuse_without_device(recipe.device)
    training_sets(inputs, recipe)
    user_loss(recipe.loss)
    Network(judged_part(model, find(model, ON_CPU, inputs.distinct_feeds).names).proto, ())


def judged_part(model: io.Model, names: Sequence[str]) -> io.Model:
    """The part of a model that computes these tensors; what follows them is not trained."""
    if list(names) == [output.name for output in model.proto.graph.output]:
        return model
    return replace(model, proto=only(model.proto, *names))


def training_sets(inputs: Inputs, recipe: "Recipe") -> tuple[Samples, Samples]:
    """The training set and the validation set.

    Raises:
        DataError: there are too few samples.
        UsageError: there are no samples, or no labels and the loss needs them; or the model's
            fixed batch is too small to measure batch statistics.
    """
    training, validation = inputs.training, inputs.validation
    if training is None or validation is None:
        raise UsageError(
            "there are no samples to train on: give <<train>>, or <<calibration>>, or more <<data>>"
        )
    needed, count = max(MIN_TRAINING_SAMPLES, recipe.batch_size), len(training) + len(validation)
    if count < needed:
        raise DataError(
            f"{training.source}: {count} samples are too few to train on; "
            f"give at least {needed}, or a smaller <<batch_size>>"
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
    return training, validation


def _student(other: io.Model, inputs: Inputs, recipe: "Recipe") -> tuple["Network", float]:
    """The rewritten model as a torch module, and its relative L2 difference from ONNX Runtime.

    Raises:
        ParityError: the difference is too large.
    """
    from onnxcp.torchgraph.module import Network
    from onnxcp.torchgraph.parity import check_parity

    network = Network(other.proto, trainable(other.proto, recipe.weights))
    half = any(t.data_type == onnx.TensorProto.FLOAT16 for t in other.proto.graph.initializer)
    tolerance = ON_CPU.tolerance(np.dtype(np.float16 if half else np.float32))
    with temporary.folder() as folder:
        path = folder / other.path.name
        io.save(other.proto, path, other.external)
        runner = open_runner(path, ON_CPU)
    parity = check_parity(network, runner, inputs.surgery_feeds[0], tolerance)
    return network.to(recipe.device), parity


def replaced_outputs(
    proto: onnx.ModelProto, other: onnx.ModelProto, shapes: Shapes
) -> tuple[str, ...]:
    """Names of the replaced layers' outputs; the chains' outputs have the same names. `shapes` are
    those of the inputs."""
    sites = provenance.read(other).sites
    before = as_in(passes.as_in(proto, other, infer(proto, shapes)), other)
    return tuple(node.output[0] for node in changes(before, other, sites).replaced)


def user_loss(name: str | None) -> "UserLoss | None":
    """The loss function named as `module:function`, None for None.

    Raises:
        UsageError: the function does not exist.
    """
    return None if name is None else named_function("loss", name)


def gives_probabilities(model: io.Model) -> bool:
    """Whether the first output is that of a Softmax."""
    first = model.proto.graph.output[0].name
    return any(
        operator(node) == "Softmax" and first in node.output for node in model.proto.graph.node
    )
