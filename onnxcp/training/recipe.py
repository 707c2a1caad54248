"""How a rewritten model is trained: every choice in one place, with the values to start from."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from onnxcp.errors import UsageError

OPTIMIZERS = ("adamw", "sgd")
DEVICES = ("cpu", "cuda")
BATCH_NORMS = ("frozen", "recalibrated", "trained")
AUGMENTATIONS = ("flip", "crop", "mix")
CHAINS, ALL = "chains", "all"
ADAMW, MOST, SGD = 2e-4, 1e-3, 0.01  # learning rates: AdamW's at a loss of 1, its most, SGD's
OPTIONAL = {"loss": (str, type(None)), "learning_rate": (float, int, type(None))}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Without a `learning_rate` it follows how far from the original the model is as it comes.
    AdamW's is that of weights of a root mean square of 0.3; others get theirs in proportion.
    `train` is "chains", "all" or a glob of node names. Weights of the loss: of `labels`
    (cross-entropy), `features` (what replaced layers gave) and `stability` (sensitivity of the
    chains) beside 1 for what the original gives. `warmup` is a share of all steps, `ema` the
    share of an average that stays at a step, 0 without one. `patience` is the number of epochs
    without gain that end the training. `mixed_precision` computes layers in bfloat16, or where a
    GPU has none in float16, and keeps weights in float32."""

    epochs: int = 10
    batch: int = 64  # on two cores a quarter less time an epoch than at 128, for the caches
    learning_rate: float | None = None
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    temperature: float = 12.0  # sure answers to images it was trained on tell little at less
    labels: float = 0.0
    features: float = 0.0
    stability: float = 0.0
    loss: str | None = None
    train: str = CHAINS
    batch_norm: str = "frozen"
    augment: tuple[str, ...] = ()
    warmup: float = 0.05
    clip: float = 1.0
    ema: float = 0.995
    patience: int = 0
    seed: int = 0
    device: str = "cpu"
    mixed_precision: bool = False

    def __post_init__(self) -> None:
        for name, value, low in (
            ("epochs", self.epochs, 1),
            ("batch-size", self.batch, 2),
            ("patience", self.patience, 0),
        ):
            if value < low:
                raise UsageError(f"--{name} {value}: give {low} or more")
        for name, number, most in (
            ("learning-rate", self.highest(1.0), 10.0),
            ("temperature", self.temperature, 100.0),
            ("clip", self.clip, float("inf")),
        ):
            if not 0 < number <= most:
                raise UsageError(f"--{name} {number}: give a number above 0, at most {most:g}")
        for name, number in (
            ("label-weight", self.labels),
            ("feature-weight", self.features),
            ("stability", self.stability),
        ):
            if not 0 <= number < float("inf"):
                raise UsageError(f"--{name} {number}: give 0 or more")
        for name, number in (("warmup", self.warmup), ("ema", self.ema)):
            if not 0 <= number < 1:
                raise UsageError(f"{name} {number}: give a number from 0 up, below 1")
        for name, choice, choices in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("batch-norm", self.batch_norm, BATCH_NORMS),
            ("device", self.device, DEVICES),
            *(("augment", one, AUGMENTATIONS) for one in self.augment),
        ):
            if choice not in choices:
                raise UsageError(f"--{name} {choice}: choose one of {', '.join(choices)}")
        if "mix" in self.augment and (self.labels or self.loss):
            raise UsageError("--augment mix: mixed images have no labels; leave it or these out")

    def highest(self, loss: float) -> float:
        """The learning rate that is given, or else that of AdamW after the loss of the model as
        it comes, with its square root: the noise of the steps moves the outputs with the square
        of the rate, and may be no more than there is to win back. A heuristic: chains of
        ResNet-20 did alike at 2e-4 and 5e-4 at a loss of 2. The steps of SGD follow the loss by
        themselves."""
        if self.learning_rate is not None:
            return self.learning_rate
        return SGD if self.optimizer == "sgd" else min(MOST, ADAMW * math.sqrt(loss))


def names(text: str | None) -> tuple[str, ...] | None:
    """A list as `flip,crop`."""
    if text is None:
        return None
    return tuple(name.strip() for name in text.split(",") if name.strip())


def from_file(path: Path | None, given: Mapping[str, Any]) -> Recipe:
    """The recipe of a JSON file with any of its fields, as a report of `finetune` gives them;
    what is `given` counts instead of what the file says.

    Raises:
        UsageError: no such file, no such fields, or values that they can not have; or a loss,
            which is code, named in the file and not given.
    """
    said = {} if path is None else _fields(path)
    if said.get("loss") is not None and "loss" not in given:
        raise UsageError(
            f"--recipe {path}: its loss, {said['loss']!r}, is code, which only the command line "
            "may name: pass --loss to finetune, or take it out of the file"
        )
    return Recipe(**{**said, **given})


def _fields(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"--recipe {path}: no JSON file that can be read ({error})") from error
    kinds = {field.name: type(field.default) for field in fields(Recipe)}
    if not isinstance(found, dict) or not set(found) <= set(kinds):
        raise UsageError(f"--recipe {path}: give an object with some of {', '.join(kinds)}")
    if isinstance(found.get("augment"), list):
        found["augment"] = tuple(map(str, found["augment"]))
    for name, value in found.items():
        accepted = OPTIONAL.get(name, (float, int) if kinds[name] is float else (kinds[name],))
        is_odd = isinstance(value, bool) and kinds[name] is not bool
        if is_odd or not isinstance(value, accepted):
            raise UsageError(f"--recipe {path}: {name} can not be {value!r}")
    return found
