"""The recipe of a training run: every setting in one place, with its default."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from onnxcp.errors import UsageError
from onnxcp.options.run import RunOptions
from onnxcp.options.training import RecipeOptions, TrainingOptions

ADAMW_RATE, MAX_ADAMW_RATE, SGD_RATE = 2e-4, 1e-3, 0.01  # AdamW's at a loss of 1 and at most
OPTIONAL = {"loss": (str, type(None)), "learning_rate": (float, int, type(None))}
FORMER = {  # names of fields in files of former versions
    "batch": "batch_size",
    "labels": "label_weight",
    "features": "feature_weight",
    "train": "weights",
}


@dataclass(frozen=True, slots=True)
class Recipe(RecipeOptions):
    """All settings of a training run.

    Without a `learning_rate`, it follows from the loss before training. AdamW's rate is that for
    weights of root mean square 0.3; others are scaled in proportion. The weights of the loss are
    relative to 1 for distillation. `warmup` is a share of all steps. `ema` is the decay of the
    average of weights per step, 0 for no average. `clip` limits the norm of the gradient.
    `mixed_precision` computes layers in bfloat16, or in float16 on GPUs without it, and keeps
    weights in float32.

    Raises:
        UsageError: a value is out of range.
    """

    warmup: float = 0.05
    clip: float = 1.0
    ema: float = 0.995
    seed: int = 0

    def __post_init__(self) -> None:
        RecipeOptions.__post_init__(self)
        if not self.clip > 0:
            raise UsageError(f"clip {self.clip}: must be above 0")
        for name in ("warmup", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)}: must be at least 0 and below 1")

    def peak_learning_rate(self, loss: float) -> float:
        """The given learning rate; else one that follows from the loss that can be recovered.

        AdamW's grows with the square root of the loss: the noise of its steps changes outputs
        with the square of the rate, and must not exceed what can be recovered. This is a
        heuristic: chains of ResNet-20 trained equally well at 2e-4 and 5e-4 at a loss of 2. SGD's
        is constant, because its steps follow the loss anyway.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        if self.optimizer == "sgd":
            return SGD_RATE
        return min(MAX_ADAMW_RATE, ADAMW_RATE * math.sqrt(loss))


def recipe_of(options: TrainingOptions, run: RunOptions) -> Recipe:
    """The recipe of the options: that of their file, overridden by options given explicitly.

    Raises:
        UsageError: the file is unreadable, a field is unknown or a value invalid; or the file
            names a loss, which is code, and the options do not.
    """
    names = [field.name for field in fields(RecipeOptions)]
    given = {n: getattr(options, n) for n in names if n in (options.given or ())}
    if options.recipe is None or "seed" in (run.given or ()):
        given["seed"] = run.seed
    return from_file(options.recipe, given)


def asked_recipe(options: TrainingOptions, run: RunOptions) -> Recipe | None:
    """The recipe with which plans are trained; None without `finetune`.

    Raises:
        UsageError: see `recipe_of`; or training options are given without `finetune`.
    """
    if options.finetune:
        return replace(recipe_of(options, run), seed=run.seed)
    for name in sorted(options.given or ()):
        raise UsageError(f"<<{name}={getattr(options, name)}>>: goes with <<finetune>>")
    return None


def from_file(path: Path | None, given: Mapping[str, Any]) -> Recipe:
    """The recipe of a JSON file with any of its fields, as in a report of `finetune`.

    `given` overrides the fields of the file.

    Raises:
        UsageError: the file is unreadable, a field is unknown or a value invalid; or the file
            names a loss, which is code, and `given` does not.
    """
    stored = {} if path is None else _fields(path)
    if stored.get("loss") is not None and "loss" not in given:
        raise UsageError(
            f"<<recipe={path}>>: its loss, {stored['loss']!r}, is code, which only the command "
            "line may name: pass <<loss>> to finetune, or remove it from the file"
        )
    return Recipe(**{**stored, **given})


def _fields(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"<<recipe={path}>>: not a readable JSON file ({error})") from error
    kinds = {field.name: type(field.default) for field in fields(Recipe)}
    if isinstance(document, dict):
        document = {FORMER.get(name, name): value for name, value in document.items()}
    if not isinstance(document, dict) or not set(document) <= set(kinds):
        raise UsageError(f"<<recipe={path}>>: give an object with some of {', '.join(kinds)}")
    if isinstance(document.get("augment"), list):
        document["augment"] = tuple(map(str, document["augment"]))
    for name, value in document.items():
        accepted = OPTIONAL.get(name, (float, int) if kinds[name] is float else (kinds[name],))
        is_truth_value = isinstance(value, bool) and kinds[name] is not bool
        if is_truth_value or not isinstance(value, accepted):
            raise UsageError(f"<<recipe={path}>>: {name} cannot be {value!r}")
    return document
