"""The training loop: steps on batches, a validation and a checkpoint after every epoch.

The result is always the weights with the least validation loss; the weights before training
count as epoch 0. The same seed and number of threads give the same steps, also when a killed run
is resumed.
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
from onnxcp.results import EpochRecord
from onnxcp.runtime.machine import cores
from onnxcp.torchgraph.module import Network
from onnxcp.training.batches import Tensors, in_order, in_parts, shuffled, steps
from onnxcp.training.checkpoint import State, copies, load, save
from onnxcp.training.losses import are_scores, distance, divergence, sensitivity
from onnxcp.training.recipe import Recipe

Teacher = Callable[[Tensors, Sequence[str]], Sequence[Tensor]]
UserLoss = Callable[[Sequence[Tensor], "Tensor | None"], Tensor]
STATISTICS_BATCHES = 64  # to measure batch statistics on
TYPICAL_WEIGHT = 0.3  # root mean square for which AdamW's rates are chosen: chains on CIFAR-10
RATE_SCALE = "rate_scale"  # of a parameter group of AdamW
MIN_GAIN = 0.05  # of the loss: what a useful training recovers at least; a heuristic


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """The best weights by initializer, and the course of the training.

    `best` is the number of their epoch, `learning_rate` the peak learning rate. `stopped` says
    why the training ended early, None if it did not.
    """

    weights: Mapping[str, np.ndarray]
    epochs: tuple[EpochRecord, ...]
    best: int
    learning_rate: float
    stopped: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TrainingTask:
    """All that a training run needs.

    `chains` are the names of the stage weights of each chain. `features` are inner tensors that
    both models have. `gives_probabilities` says whether outputs are probabilities rather than
    scores. `fixed_batch` is the only batch size that the models take, None for any.
    `irreducible_loss` is the loss that no training is expected to recover. `subject` identifies
    the models and samples, for the checkpoint in `folder`.
    """

    network: Network
    teacher: Teacher
    training: Samples
    validation: Samples
    recipe: Recipe
    gives_probabilities: bool = False
    fixed_batch: int | None = None
    irreducible_loss: float = 0.0
    chains: Sequence[Sequence[str]] = ()
    features: tuple[str, ...] = ()
    user_loss: UserLoss | None = None
    folder: Path | None = None
    subject: str = ""
    progress: Progress = silent

    @property
    def identity(self) -> str:
        """Identifies the training: two with the same identity take the same steps."""
        return f"{self.recipe!r}|{self.subject}"

    def run(self, model: Teacher, feeds: Tensors, also: Sequence[str] = ()) -> Sequence[Tensor]:
        """Outputs for one batch of any size, and after them the tensors in `also`."""
        if self.fixed_batch is None:
            return model(feeds, also)
        return in_parts(model, feeds, also, self.fixed_batch)


def train(task: TrainingTask, *, resume: bool = False) -> Trained:
    """Train and return the best weights; a loss of NaN or infinity ends the training early.

    Raises:
        ProviderError: the device has too little memory.
        WorkError: the folder holds another training.
    """
    torch.set_num_threads(max(1, int(cores()) // 2))  # with more, up to 20 times slower
    try:
        return _trained(task, resume=resume)
    except torch.OutOfMemoryError as error:
        raise ProviderError(
            f"training: the device is out of memory; try a smaller <<batch_size>> than "
            f"{task.recipe.batch_size}, or <<device=cpu>>"
        ) from error


def _trained(task: TrainingTask, *, resume: bool) -> Trained:
    parameters = trained(task.network)
    state = _start(task, parameters)
    if not (resume and _resumed(task, state)):
        state.epochs.append(_validate(task, 0, 0.0))
        if task.recipe.batch_norm != "frozen":
            _recalibrate(task, state)
    recipe = task.recipe
    loss, total = state.epochs[0].held_out, recipe.epochs
    highest = recipe.peak_learning_rate(max(loss - task.irreducible_loss, MIN_GAIN * loss))
    for number in range(len(state.epochs), total + 1):
        if state.stopped is not None:
            break
        _epoch(task, state, parameters, number, highest)
        if task.folder is not None:
            save(task.folder, state, _changing(task), task.identity)
    if state.stopped is None and state.best_epoch == 0:
        state.stopped = "no epoch came closer to the original; try a smaller <<learning_rate>>"
    weights = {n: t.detach().cpu().numpy().copy() for n, t in state.best.items()}
    return Trained(weights, tuple(state.epochs), state.best_epoch, highest, state.stopped)


def _changing(task: TrainingTask) -> dict[str, Tensor]:
    """All tensors that training may change, by initializer."""
    return {**trained(task.network), **measured(task)}


def _resumed(task: TrainingTask, state: State) -> bool:
    """Restore the state of an earlier run; False if there is no checkpoint."""
    weights = None if task.folder is None else load(task.folder, state, task.identity)
    if weights is not None:
        task.network.load(weights)
    return weights is not None


def has_device(name: str) -> bool:
    """Whether PyTorch can train on this device, "cpu" or "cuda"."""
    return name == "cpu" or torch.cuda.is_available()


def trained(network: Network) -> dict[str, Tensor]:
    """The parameters that the optimizer changes, by initializer."""
    return {n: t for n, t in network.weights().items() if t.requires_grad}


def measured(task: TrainingTask) -> dict[str, Tensor]:
    """The statistics of batch normalizations by initializer; empty if they are frozen."""
    if task.recipe.batch_norm == "frozen":
        return {}
    return {n: t for n, t in task.network.weights().items() if not isinstance(t, Parameter)}


def _recalibrate(task: TrainingTask, state: State) -> None:
    """Measure batch normalization statistics again; keep them if the validation loss is less.

    For a network that is already exact, statistics of few images are worse.
    """
    moments = measured(task)
    before = copies(moments)
    batches = islice(shuffled(task.training, task.recipe, 0), STATISTICS_BATCHES)
    task.network.recalibrate(feeds for feeds, _ in batches)
    epoch = _validate(task, 0, 0.0)
    if epoch.held_out < state.epochs[0].held_out:
        state.epochs[0] = epoch
        state.best |= copies(moments)
    else:
        _put(moments, before)


def _start(task: TrainingTask, parameters: Tensors) -> State:
    recipe = task.recipe
    if recipe.optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            parameters.values(),
            momentum=0.9,
            nesterov=True,
            weight_decay=recipe.weight_decay,
        )
    else:
        groups = [{"params": [p], RATE_SCALE: rate_scale(p)} for p in parameters.values()]
        optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    scaled = torch.amp.GradScaler(recipe.device, enabled=_half(recipe) == torch.float16)
    return State(optimizer, scaled, copies(parameters), copies({**parameters, **measured(task)}))


def rate_scale(weights: Tensor) -> float:
    """The factor of the learning rate for a tensor, in proportion to the size of its weights.

    AdamW's steps have the same size for all weights. For some stages, whose weights are small
    after int8 scaled the chain's terms, they would be too large.
    """
    size = float(weights.detach().square().mean().sqrt())
    return size / TYPICAL_WEIGHT if weights.dim() > 1 and size > 0 else 1.0


def _half(recipe: Recipe) -> torch.dtype | None:
    """The type for mixed precision, None without: bfloat16 if available, for its range."""
    if not recipe.mixed_precision:
        return None
    is_old = recipe.device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if is_old else torch.bfloat16


def rate(step: int, total: int, recipe: Recipe) -> float:
    """The share of the peak learning rate at a step: linear warm-up, then half a cosine to 0."""
    warmup = max(1, round(recipe.warmup * total))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1 + math.cos(math.pi * progress))


def _epoch(
    task: TrainingTask, state: State, parameters: Tensors, number: int, highest: float
) -> None:
    """One pass over the training set, then a validation."""
    recipe, losses = task.recipe, list[float]()
    if recipe.batch_norm == "trained":
        task.network.use_batch_statistics()
    count = steps(task.training, recipe)
    for step, (feeds, labels) in enumerate(shuffled(task.training, recipe, number)):
        at = (number - 1) * count + step
        for group in state.optimizer.param_groups:
            scale = group.get(RATE_SCALE, 1.0)
            group["lr"] = scale * highest * rate(at, recipe.epochs * count, recipe)
        loss = _loss(task, feeds, labels)
        if not math.isfinite(loss.item()):
            state.stopped = f"the loss became {loss.item()} in epoch {number}, step {step + 1}"
            return
        _step(state, loss, parameters, recipe)
        _average(state, parameters, recipe.ema, at)
        losses.append(loss.item())
        task.progress(f"train, epoch {number} of {recipe.epochs}", step + 1, count)
    _finish_epoch(task, state, parameters, number, float(np.mean(losses)))


def _step(state: State, loss: Tensor, parameters: Tensors, recipe: Recipe) -> None:
    """One optimizer step; none if the scaled gradients overflow float16."""
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()
    state.scaler.unscale_(state.optimizer)
    clip_grad_norm_(parameters.values(), recipe.clip)
    state.scaler.step(state.optimizer)
    state.scaler.update()


def _finish_epoch(
    task: TrainingTask, state: State, parameters: Tensors, number: int, loss: float
) -> None:
    """Validate the averaged weights, and keep them if they are the best so far."""
    task.network.use_stored_statistics()
    current = copies(parameters)
    _put(parameters, state.average)
    epoch = _validate(task, number, loss)
    _put(parameters, current)
    state.epochs.append(epoch)
    if epoch.held_out < state.epochs[state.best_epoch].held_out:
        state.best = copies({**state.average, **measured(task)})
        state.best_epoch = number
    patience = task.recipe.patience
    if patience and number - state.best_epoch >= patience:
        state.stopped = f"no gain on held-out samples since epoch {state.best_epoch}"


def _average(state: State, parameters: Tensors, decay: float, step: int) -> None:
    """Move the exponential average towards the weights, faster during the first steps."""
    share = 1 - min(decay, (1 + step) / (10 + step)) if decay else 1.0
    with torch.no_grad():
        for name, tensor in parameters.items():
            state.average[name].lerp_(tensor, share)


def _put(parameters: Tensors, values: Tensors) -> None:
    with torch.no_grad():
        for name, tensor in parameters.items():
            tensor.copy_(values[name])


def _loss(task: TrainingTask, feeds: Tensors, labels: Tensor | None) -> Tensor:
    """The loss on one batch: distillation, features, labels, the user's loss and stability."""
    recipe, half = task.recipe, _half(task.recipe)
    with torch.autocast(recipe.device, half, enabled=half is not None):
        with torch.no_grad():
            teacher = task.run(task.teacher, feeds, task.features)
        student = task.run(task.network, feeds, task.features)
    count = len(student) - len(task.features)
    loss = _distillation_loss(task, student[:count], teacher[:count])
    if task.features:
        loss = loss + recipe.feature_weight * distance(student[count:], teacher[count:])
    if recipe.label_weight and labels is not None:
        scores = student[0].reshape(len(student[0]), -1).float()
        is_soft = task.gives_probabilities
        logs = scores.clamp_min(1e-12).log() if is_soft else scores.log_softmax(1)
        loss = loss + recipe.label_weight * torch.nn.functional.nll_loss(
            logs, labels.long().reshape(-1)
        )
    if task.user_loss is not None:
        loss = loss + task.user_loss(student[:count], labels)
    if recipe.stability:
        loss = loss + recipe.stability * _sensitivity(task)
    return loss


def _distillation_loss(
    task: TrainingTask, student: Sequence[Tensor], teacher: Sequence[Tensor]
) -> Tensor:
    if are_scores(teacher[0]):
        temperature, are_probabilities = task.recipe.temperature, task.gives_probabilities
        return divergence(student[0], teacher[0], temperature, are_probabilities=are_probabilities)
    return distance(student, teacher)


def _sensitivity(task: TrainingTask) -> Tensor:
    weights = task.network.weights()
    parts = [sensitivity([weights[name] for name in names]) for names in task.chains]
    return torch.stack(parts).mean() if parts else torch.zeros(())


def _validate(task: TrainingTask, number: int, loss: float) -> EpochRecord:
    """The validation loss, and how often both models have the same top class."""
    total, seen, agreeing, has_scores = 0.0, 0, 0.0, True
    with torch.no_grad():
        for feeds, _ in in_order(task.validation, task.recipe):
            student = task.run(task.network, feeds)
            teacher = task.run(task.teacher, feeds)
            teacher = teacher[: len(student)]
            count = len(teacher[0])
            batch_loss = _distillation_loss(task, student, teacher)
            total, seen = total + count * batch_loss.item(), seen + count
            has_scores = are_scores(teacher[0])
            if has_scores:
                top = [y[0].reshape(count, -1).argmax(1) for y in (student, teacher)]
                agreeing += (top[0] == top[1]).sum().item()
    held_out = total / seen if math.isfinite(total) else math.inf
    return EpochRecord(number, loss, held_out, agreeing / seen if has_scores else None)
