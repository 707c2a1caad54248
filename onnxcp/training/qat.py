"""An int8 model taught by the float original before it is made: a training that rounds.

Nothing here but what is imported inside functions needs PyTorch.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxcp.data.roles import Inputs
from onnxcp.errors import ParityError, UsageError
from onnxcp.graph import io
from onnxcp.graph.input_specs import Feeds
from onnxcp.graph.operators import operator
from onnxcp.graph.weights import rank_one, trainable, with_weights
from onnxcp.progress import Progress, silent
from onnxcp.quantization.static import Prepared
from onnxcp.runtime.sessions import open_runner
from onnxcp.training.distill import (
    ON_CPU,
    Taught,
    enough,
    gives_probabilities,
    replaced_outputs,
    user_loss,
)
from onnxcp.training.fake_quant import Simulation, simulated

if TYPE_CHECKING:
    from onnxcp.training.recipe import Recipe

# Steps between a value in torch, before it is rounded, and what ONNX Runtime rounds it to. On
# nine real models at most 0.52: a half, and what rounded biases add. With the weights of one
# layer not rounded it was 0.87 and more.
MOST_STEPS = 0.75
BY_TABLE = {"Softmax": 2.0}  # rounded more than once in ONNX Runtime: 1.5 were seen
LEAST = 1e-7  # of an error: below it the runtime's sigmoid is not exact


def teach_int8(
    model: io.Model,
    prepared: Prepared,
    inputs: Inputs,
    recipe: "Recipe",
    *,
    stays: float = 0.0,
    folder: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> tuple[Prepared, Taught]:
    """Train the weights of a prepared model, rounded as its int8 model has them, to give what
    `model` gives, on the inputs' samples to train on. Ranges of activations stay. `stays` is
    what the float model that was prepared loses on held-out samples. With a `folder` a killed
    training leaves there what another one goes on from.

    Raises:
        DataError: too few samples, or none with labels where the loss needs them.
        OnnxcpError: an operator that torch can not compute here; too little memory.
        ParityError: ONNX Runtime's int8 model computes something else than what is trained.
        UsageError: options that name nothing.
        WorkError: the folder is of another training.
    """
    from onnxcp.torchgraph.module import Network
    from onnxcp.training.loop import Lesson, train

    training, held = enough(inputs, recipe)
    prepared = prepared.corrected()
    simulation, feeds = simulated(prepared), inputs.surgery_feeds[0]
    network = Network(simulation.graph, _trained(prepared, simulation, recipe.weights))
    parity = check_steps(simulation, feeds)
    lesson = Lesson(
        network=network.to(recipe.device),
        teacher=Network(model.proto, ()).to(recipe.device),
        training=training,
        held=held,
        recipe=recipe,
        soft=gives_probabilities(model),
        fixed=inputs.batching.size if inputs.batching.fixed else None,
        stays=stays,
        chains=rank_one(prepared.folded),
        watched=_watched(model, prepared, simulation) if recipe.feature_weight else (),
        user_loss=user_loss(recipe.loss),
        folder=folder,
        about=f"{model.sha256}|{_digest(prepared)}|{training.source}|{len(training)}",
        progress=progress,
    )
    trained = train(lesson, resume=resume)
    made = replace(prepared, folded=with_weights(prepared.folded, trained.weights))
    check_steps(simulated(made), feeds)
    counts = {"train": len(training), "held_out": len(held)}
    used = replace(recipe, learning_rate=trained.learning_rate)
    return made, Taught(trained, used, counts, parity)


def check_steps(simulation: Simulation, feeds: Feeds) -> float:
    """That torch computes what ONNX Runtime does in int8, from every rounding to the next; how
    far the outputs of the whole are from each other, relative L2. That is much more than errors
    of float32: where two values fall on both sides of a half, they go on a step apart.

    Raises:
        ParityError: an activation differs by more than rounding.
    """
    from onnxcp.torchgraph.module import Network
    from onnxcp.torchgraph.parity import outputs

    runner = open_runner(simulation.watched().SerializeToString(), ON_CPU)
    ran = dict(zip(runner.outputs, runner(feeds), strict=True))
    given = {r.given: r.values(ran[r.integers]) for r in simulation.roundings}
    pieces = Network(simulation.parted(), ())
    made = dict(zip(pieces.outputs, outputs(pieces, {**feeds, **given}), strict=True))
    makers = {name: operator(n) for n in simulation.graph.graph.node for name in n.output}
    for rounding in simulation.roundings:
        off = rounding.steps_between(made[rounding.read], given[rounding.given])
        most = BY_TABLE.get(makers.get(rounding.read, ""), MOST_STEPS)
        if not (off <= most or off * rounding.scale <= LEAST):  # NaN is neither
            raise _differs(rounding.read, f"{off:.2g} steps, where rounding is half a step")
    whole, tolerance = Network(simulation.graph, ()), ON_CPU.tolerance(np.dtype(np.float32))
    for name in set(whole.outputs) - set(given):
        if not (error := _relative(made[name], ran[name])) <= tolerance:
            raise _differs(name, f"{error:.2g} relative")
    both = zip(whole.outputs, outputs(whole, feeds), strict=True)
    return max((_relative(y, ran[name]) for name, y in both), default=0.0)


def _differs(name: str, by: str) -> ParityError:
    return ParityError(
        f"activation {name!r}: ONNX Runtime's int8 is not what torch computes, by {by}; on a CPU "
        "whose sums of 8-bit products saturate give weights a reduced range; else this is a bug "
        "in onnxcp: please report it with the model"
    )


def _relative(made: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(made - wanted) / max(float(np.linalg.norm(wanted)), LEAST))


def _trained(prepared: Prepared, simulation: Simulation, which: str) -> list[str]:
    """What training moves: of the weights meant those that products read, or float nodes.

    Raises:
        UsageError: there are none.
    """
    stored = {t.name for t in simulation.graph.graph.initializer}
    found = [name for name in trainable(prepared.folded, which) if name in stored]
    if not found:
        raise UsageError(
            f"<<weights={which}>>: names no weights of a Conv, Gemm or MatMul; give chains, all, "
            "or a glob of node names that `onnxcp inspect` lists"
        )
    return found


def _watched(model: io.Model, prepared: Prepared, simulation: Simulation) -> tuple[str, ...]:
    """What the replaced layers gave, where the int8 model has it before it is rounded.

    Raises:
        UsageError: it has none of it.
    """
    made = {name for node in simulation.graph.graph.node for name in node.output}
    names = tuple(n for n in replaced_outputs(model.proto, prepared.original) if n in made)
    if not names:
        raise UsageError(
            "<<feature_weight>>: in int8 the outputs of the replaced layers are joined with what "
            "follows them; leave it out"
        )
    return names


def _digest(prepared: Prepared) -> str:
    """Of what a training starts from."""
    folded = prepared.folded.SerializeToString(deterministic=True)
    told = f"{sorted(prepared.ranges.items())}|{prepared.nodes}|{prepared.scheme}"
    return hashlib.sha256(folded + told.encode()).hexdigest()
