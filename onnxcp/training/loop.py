"""The loop: steps on batches, a look at held-out samples after every epoch, a checkpoint.

Whatever happens, the best weights seen on held-out samples are what comes out; the weights as
they came count as epoch 0. With the same seed and number of threads the same steps are taken,
also where a killed run goes on.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_

from onnxcp.data.samples import Samples
from onnxcp.errors import ProviderError
from onnxcp.progress import Progress, silent
from onnxcp.runtime.machine import cores
from onnxcp.torchgraph.module import Network
from onnxcp.training.batches import Tensors, in_order, in_parts, shuffled, steps
from onnxcp.training.checkpoint import Epoch, State, copies, load, save
from onnxcp.training.losses import are_scores, distance, divergence, sensitivity
from onnxcp.training.recipe import Recipe

Teacher = Callable[[Tensors, Sequence[str]], Sequence[Tensor]]
UserLoss = Callable[[Sequence[Tensor], "Tensor | None"], Tensor]
MEASURED = 64  # batches that statistics are measured on
TYPICAL = 0.3  # root mean square of the weights that AdamW's rates are for: CIFAR-10's chains
SHARE = "share"
LEAST = 0.05  # of the loss: what a training wins back, if it does any good


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """Weights by initializer, and how they came about: the `learning_rate` is the highest one.
    `stopped` says why it ended early."""

    weights: Mapping[str, np.ndarray]
    epochs: tuple[Epoch, ...]
    best: int
    learning_rate: float
    stopped: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What is trained to do what. `chains` are the stages' weights of each chain, by name;
    `watched` are tensors that both models have. `soft`: the outputs are probabilities.
    `fixed` is the batch that the models take, where they take no other. `stays` is the loss that
    no training is expected to win back. `about` tells the models and samples from others, for
    what a killed run leaves in `folder`."""

    network: Network
    teacher: Teacher
    training: Samples
    held: Samples
    recipe: Recipe
    soft: bool = False
    fixed: int | None = None
    stays: float = 0.0
    chains: Sequence[Sequence[str]] = ()
    watched: tuple[str, ...] = ()
    user_loss: UserLoss | None = None
    folder: Path | None = None
    about: str = ""
    progress: Progress = silent

    @property
    def identity(self) -> str:
        """Of trainings: two with the same take the same steps."""
        return f"{self.recipe!r}|{self.about}"

    def run(self, model: Teacher, feeds: Tensors, also: Sequence[str] = ()) -> Sequence[Tensor]:
        """Outputs of one batch of any size, and the tensors in `also`."""
        return (
            model(feeds, also) if self.fixed is None else in_parts(model, feeds, also, self.fixed)
        )


def train(lesson: Lesson, *, resume: bool = False) -> Trained:
    """Train; a loss that is no number ends it, with the best weights till then."""
    torch.set_num_threads(max(1, int(cores()) // 2))  # more were seen 20 times slower
    try:
        return _trained(lesson, resume=resume)
    except torch.OutOfMemoryError as error:
        raise ProviderError(
            f"training: the device is out of memory; try a smaller <<batch_size>> than "
            f"{lesson.recipe.batch_size}, or <<device=cpu>>"
        ) from error


def _trained(lesson: Lesson, *, resume: bool) -> Trained:
    parameters = trained(lesson.network)
    state = _start(lesson, parameters)
    if not (resume and _goes_on(lesson, state)):
        state.epochs.append(_look(lesson, 0, 0.0))
        if lesson.recipe.batch_norm != "frozen":
            _recalibrate(lesson, state)
    recipe = lesson.recipe
    loss, total = state.epochs[0].held_out, recipe.epochs
    highest = recipe.highest(max(loss - lesson.stays, LEAST * loss))
    for number in range(len(state.epochs), total + 1):
        if state.stopped is not None:
            break
        _epoch(lesson, state, parameters, number, highest)
        if lesson.folder is not None:
            save(lesson.folder, state, _changing(lesson), lesson.identity)
    if state.stopped is None and state.best_epoch == 0:
        state.stopped = "no epoch came closer to the original; try a smaller <<learning_rate>>"
    weights = {n: t.detach().cpu().numpy().copy() for n, t in state.best.items()}
    return Trained(weights, tuple(state.epochs), state.best_epoch, highest, state.stopped)


def _changing(lesson: Lesson) -> dict[str, Tensor]:
    """All that training may change, by initializer."""
    return {**trained(lesson.network), **measured(lesson)}


def _goes_on(lesson: Lesson, state: State) -> bool:
    """Take up what an earlier run left; False if it left nothing."""
    weights = None if lesson.folder is None else load(lesson.folder, state, lesson.identity)
    if weights is not None:
        lesson.network.load(weights)
    return weights is not None


def has_device(name: str) -> bool:
    """Whether torch can train there."""
    return name == "cpu" or torch.cuda.is_available()


def trained(network: Network) -> dict[str, Tensor]:
    """The parameters that training moves, by initializer."""
    return {n: t for n, t in network.weights().items() if t.requires_grad}


def measured(lesson: Lesson) -> dict[str, Tensor]:
    """The statistics of batch normalizations, where they may change."""
    if lesson.recipe.batch_norm == "frozen":
        return {}
    return {n: t for n, t in lesson.network.weights().items() if not isinstance(t, Parameter)}


def _recalibrate(lesson: Lesson, state: State) -> None:
    """Measure the statistics of batch normalizations anew; keep them if that is closer to the
    original on held-out samples: on an exact network few images make it worse."""
    moments = measured(lesson)
    before = copies(moments)
    batches = islice(shuffled(lesson.training, lesson.recipe, 0), MEASURED)
    lesson.network.recalibrate(feeds for feeds, _ in batches)
    found = _look(lesson, 0, 0.0)
    if found.held_out < state.epochs[0].held_out:
        state.epochs[0] = found
        state.best |= copies(moments)
    else:
        _put(moments, before)


def _start(lesson: Lesson, parameters: Tensors) -> State:
    recipe = lesson.recipe
    if recipe.optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            parameters.values(),
            momentum=0.9,
            nesterov=True,
            weight_decay=recipe.weight_decay,
        )
    else:
        groups = [{"params": [p], SHARE: share(p)} for p in parameters.values()]
        optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    scaled = torch.amp.GradScaler(recipe.device, enabled=_half(recipe) == torch.float16)
    return State(optimizer, scaled, copies(parameters), copies({**parameters, **measured(lesson)}))


def share(weights: Tensor) -> float:
    """Of the learning rate, by the size of weights: AdamW takes steps of one size, in which the
    small weights of some stages, after int8 has scaled a chain's terms, would drown."""
    size = float(weights.detach().square().mean().sqrt())
    return size / TYPICAL if weights.dim() > 1 and size > 0 else 1.0


def _half(recipe: Recipe) -> torch.dtype | None:
    """What mixed precision computes in: bfloat16 wherever it is to be had, for its range."""
    if not recipe.mixed_precision:
        return None
    is_old = recipe.device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if is_old else torch.bfloat16


def rate(step: int, total: int, recipe: Recipe) -> float:
    """The share of the highest learning rate at a step: a rise over the warm-up, then half a
    cosine down to 0."""
    warm = max(1, round(recipe.warmup * total))
    if step < warm:
        return (step + 1) / warm
    share = (step - warm) / max(1, total - warm)
    return 0.5 * (1 + math.cos(math.pi * share))


def _epoch(lesson: Lesson, state: State, parameters: Tensors, number: int, highest: float) -> None:
    """One pass over the training samples, and a look at the others."""
    recipe, losses = lesson.recipe, list[float]()
    if recipe.batch_norm == "trained":
        lesson.network.use_batch_statistics()
    count = steps(lesson.training, recipe)
    for step, (feeds, labels) in enumerate(shuffled(lesson.training, recipe, number)):
        at = (number - 1) * count + step
        for group in state.optimizer.param_groups:
            part = group.get(SHARE, 1.0)
            group["lr"] = part * highest * rate(at, recipe.epochs * count, recipe)
        loss = _loss(lesson, feeds, labels)
        if not math.isfinite(loss.item()):
            state.stopped = f"the loss became {loss.item()} in epoch {number}, step {step + 1}"
            return
        _step(state, loss, parameters, recipe)
        _average(state, parameters, recipe.ema, at)
        losses.append(loss.item())
        lesson.progress(f"train, epoch {number} of {recipe.epochs}", step + 1, count)
    _judge(lesson, state, parameters, number, float(np.mean(losses)))


def _step(state: State, loss: Tensor, parameters: Tensors, recipe: Recipe) -> None:
    """One step down the loss. Scaled gradients that overflow float16 make none."""
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()
    state.scaler.unscale_(state.optimizer)
    clip_grad_norm_(parameters.values(), recipe.clip)
    state.scaler.step(state.optimizer)
    state.scaler.update()


def _judge(lesson: Lesson, state: State, parameters: Tensors, number: int, loss: float) -> None:
    """Look at held-out samples with the averaged weights, and keep them if they are the best."""
    lesson.network.use_stored_statistics()
    live = copies(parameters)
    _put(parameters, state.average)
    found = _look(lesson, number, loss)
    _put(parameters, live)
    state.epochs.append(found)
    if found.held_out < state.epochs[state.best_epoch].held_out:
        state.best = copies({**state.average, **measured(lesson)})
        state.best_epoch = number
    patience = lesson.recipe.patience
    if patience and number - state.best_epoch >= patience:
        state.stopped = f"no gain on held-out samples since epoch {state.best_epoch}"


def _average(state: State, parameters: Tensors, stays: float, step: int) -> None:
    """Move the average towards the weights; faster at first, when it has seen few."""
    share = 1 - min(stays, (1 + step) / (10 + step)) if stays else 1.0
    with torch.no_grad():
        for name, tensor in parameters.items():
            state.average[name].lerp_(tensor, share)


def _put(parameters: Tensors, values: Tensors) -> None:
    with torch.no_grad():
        for name, tensor in parameters.items():
            tensor.copy_(values[name])


def _loss(lesson: Lesson, feeds: Tensors, labels: Tensor | None) -> Tensor:
    """All that training brings down, on one batch."""
    recipe, half = lesson.recipe, _half(lesson.recipe)
    with torch.autocast(recipe.device, half, enabled=half is not None):
        with torch.no_grad():
            wanted = lesson.run(lesson.teacher, feeds, lesson.watched)
        given = lesson.run(lesson.network, feeds, lesson.watched)
    count = len(given) - len(lesson.watched)
    loss = _from_the_original(given[:count], wanted[:count], recipe.temperature, lesson.soft)
    if lesson.watched:
        loss = loss + recipe.feature_weight * distance(given[count:], wanted[count:])
    if recipe.label_weight and labels is not None:
        scores = given[0].reshape(len(given[0]), -1).float()
        logs = scores.clamp_min(1e-12).log() if lesson.soft else scores.log_softmax(1)
        loss = loss + recipe.label_weight * torch.nn.functional.nll_loss(
            logs, labels.long().reshape(-1)
        )
    if lesson.user_loss is not None:
        loss = loss + lesson.user_loss(given[:count], labels)
    if recipe.stability:
        loss = loss + recipe.stability * _sensitivity(lesson)
    return loss


def _from_the_original(
    given: Sequence[Tensor], wanted: Sequence[Tensor], temperature: float, soft: bool
) -> Tensor:
    if are_scores(wanted[0]):
        return divergence(given[0], wanted[0], temperature, soft=soft)
    return distance(given, wanted)


def _sensitivity(lesson: Lesson) -> Tensor:
    weights = lesson.network.weights()
    parts = [sensitivity([weights[name] for name in names]) for names in lesson.chains]
    return torch.stack(parts).mean() if parts else torch.zeros(())


def _look(lesson: Lesson, number: int, loss: float) -> Epoch:
    """The distance from the original on held-out samples, and how often both choose alike."""
    total, seen, same, scores = 0.0, 0, 0.0, True
    with torch.no_grad():
        for feeds, _ in in_order(lesson.held, lesson.recipe):
            given = lesson.run(lesson.network, feeds)
            wanted = lesson.run(lesson.teacher, feeds)
            wanted = wanted[: len(given)]
            count = len(wanted[0])
            found = _from_the_original(given, wanted, lesson.recipe.temperature, lesson.soft)
            total, seen = total + count * found.item(), seen + count
            scores = are_scores(wanted[0])
            if scores:
                strongest = [y[0].reshape(count, -1).argmax(1) for y in (given, wanted)]
                same += (strongest[0] == strongest[1]).sum().item()
    held = total / seen if math.isfinite(total) else math.inf
    return Epoch(number, loss, held, same / seen if scores else None)
