"""Quantization-aware training: distillation with simulated int8 rounding, before quantization.

The float original is the teacher. PyTorch is imported only inside functions.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxcp.data.roles import Inputs
from onnxcp.errors import ParityError, UsageError
from onnxcp.graph import io
from onnxcp.graph.index import made_names
from onnxcp.graph.input_specs import Feeds
from onnxcp.graph.operators import operator
from onnxcp.graph.weights import rank_one, trainable, with_weights
from onnxcp.progress import Progress, silent
from onnxcp.quantization.static import Prepared
from onnxcp.runtime.watch import Watch
from onnxcp.training.distill import (
    ON_CPU,
    Distilled,
    gives_probabilities,
    replaced_outputs,
    training_sets,
    user_loss,
)
from onnxcp.training.fake_quant import Simulation, simulated

if TYPE_CHECKING:
    from onnxcp.training.recipe import Recipe

# Steps between a value in PyTorch, before rounding, and the value ONNX Runtime rounds it to. On
# nine real models it was at most 0.52: a half, plus the effect of rounded biases. With the
# weights of one layer not rounded it was at least 0.87.
MAX_STEPS = 0.75
MAX_STEPS_OF = {"Softmax": 2.0}  # ONNX Runtime rounds it more than once: 1.5 was measured
MIN_ERROR = 1e-7  # absolute: ONNX Runtime's sigmoid is not more exact


def distill_int8(
    model: io.Model,
    prepared: Prepared,
    inputs: Inputs,
    recipe: "Recipe",
    *,
    irreducible_loss: float = 0.0,
    folder: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> tuple[Prepared, Distilled]:
    """Train the weights of a prepared model, rounded as in its int8 model, to reproduce `model`.

    Ranges of activations stay fixed. `irreducible_loss` is the validation loss of the prepared
    model in float. With a `folder`, checkpoints are stored there, from which `resume` continues.

    Raises:
        DataError: there are too few samples.
        OnnxcpError: PyTorch cannot compute an operator, or memory is too small.
        ParityError: ONNX Runtime's int8 model does not compute what is trained.
        UsageError: the loss needs labels and there are none, or an option names nothing.
        WorkError: the folder holds another training.
    """
    from onnxcp.torchgraph.module import Network
    from onnxcp.training.loop import TrainingTask, train

    training, validation = training_sets(inputs, recipe)
    prepared = prepared.corrected()
    simulation, feeds = simulated(prepared), inputs.surgery_feeds[0]
    network = Network(simulation.graph, _trained(prepared, simulation, recipe.weights))
    parity = check_steps(simulation, feeds)
    task = TrainingTask(
        network=network.to(recipe.device),
        teacher=Network(model.proto, ()).to(recipe.device),
        training=training,
        validation=validation,
        recipe=recipe,
        gives_probabilities=gives_probabilities(model),
        fixed_batch=inputs.batching.size if inputs.batching.fixed else None,
        irreducible_loss=irreducible_loss,
        chains=rank_one(prepared.folded),
        features=_features(model, prepared, simulation, inputs) if recipe.feature_weight else (),
        user_loss=user_loss(recipe.loss),
        folder=folder,
        subject=f"{model.sha256}|{_digest(prepared)}|{training.source}|{len(training)}",
        progress=progress,
    )
    trained = train(task, resume=resume)
    result = replace(prepared, folded=with_weights(prepared.folded, trained.weights))
    check_steps(simulated(result), feeds)
    counts = {"train": len(training), "held_out": len(validation)}
    used = replace(recipe, learning_rate=trained.learning_rate)
    return result, Distilled(trained, used, counts, parity)


def check_steps(simulation: Simulation, feeds: Feeds) -> float:
    """Check that PyTorch computes what ONNX Runtime does in int8, from each rounding to the next.

    Returns the relative L2 difference of the outputs of the whole graph. It is much larger than
    float32 errors: two values on either side of a half continue one step apart.

    Raises:
        ParityError: an activation differs by more than rounding.
    """
    from onnxcp.torchgraph.module import Network
    from onnxcp.torchgraph.parity import outputs

    expected = Watch.of(simulation.int8, simulation.with_integers, ON_CPU)(feeds)
    rounded = {r.result: r.values(expected[r.integers]) for r in simulation.roundings}
    pieces = Network(simulation.in_pieces(), ())
    computed = dict(zip(pieces.outputs, outputs(pieces, {**feeds, **rounded}), strict=True))
    makers = {name: operator(n) for n in simulation.graph.graph.node for name in n.output}
    for rounding in simulation.roundings:
        off = rounding.steps_between(computed[rounding.source], rounded[rounding.result])
        limit = MAX_STEPS_OF.get(makers.get(rounding.source, ""), MAX_STEPS)
        if not (off <= limit or off * rounding.scale <= MIN_ERROR):  # NaN is neither
            raise _differs(rounding.source, f"{off:.2g} steps; rounding is half a step")
    whole, tolerance = Network(simulation.graph, ()), ON_CPU.tolerance(np.dtype(np.float32))
    for name in set(whole.outputs) - set(rounded):
        if not (error := _relative(computed[name], expected[name])) <= tolerance:
            raise _differs(name, f"{error:.2g} relative")
    results = zip(whole.outputs, outputs(whole, feeds), strict=True)
    return max((_relative(y, expected[name]) for name, y in results), default=0.0)


def _differs(name: str, by: str) -> ParityError:
    return ParityError(
        f"activation {name!r}: ONNX Runtime's int8 differs from PyTorch by {by}; on a CPU whose "
        "sums of 8-bit products saturate, give weights a reduced range; else this is a bug in "
        "onnxcp: please report it with the model"
    )


def _relative(computed: np.ndarray, expected: np.ndarray) -> float:
    size = max(float(np.linalg.norm(expected)), MIN_ERROR)
    return float(np.linalg.norm(computed - expected) / size)


def _trained(prepared: Prepared, simulation: Simulation, which: str) -> list[str]:
    """The weights to train: those of `which` that are float initializers in the simulation.

    Raises:
        UsageError: there are none.
    """
    stored = {t.name for t in simulation.graph.graph.initializer}
    names = [name for name in trainable(prepared.folded, which) if name in stored]
    if not names:
        raise UsageError(
            f"<<weights={which}>>: names no weights of a Conv, Gemm or MatMul; give chains, all, "
            "or a glob of node names that `onnxcp inspect` lists"
        )
    return names


def _features(
    model: io.Model, prepared: Prepared, simulation: Simulation, inputs: Inputs
) -> tuple[str, ...]:
    """The outputs of replaced layers that the int8 model computes before rounding.

    Raises:
        UsageError: there are none.
    """
    tensors = made_names(simulation.graph.graph.node)
    replaced = replaced_outputs(model.proto, prepared.original, inputs.shapes)
    names = tuple(name for name in replaced if name in tensors)
    if not names:
        raise UsageError(
            "<<feature_weight>>: in int8 the outputs of the replaced layers are fused with what "
            "follows them; leave it out"
        )
    return names


def _digest(prepared: Prepared) -> str:
    """The hash of all that a training starts from."""
    folded = prepared.folded.SerializeToString(deterministic=True)
    settings = f"{sorted(prepared.ranges.items())}|{prepared.nodes}|{prepared.scheme}"
    return hashlib.sha256(folded + settings.encode()).hexdigest()
