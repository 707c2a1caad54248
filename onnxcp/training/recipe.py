"""How a rewritten model is trained: every choice in one place, with the values to start from."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from onnxcp.errors import UsageError
from onnxcp.options.run import RunOptions
from onnxcp.options.training import RecipeOptions, TrainingOptions

ADAMW, MOST, SGD = 2e-4, 1e-3, 0.01  # learning rates: AdamW's at a loss of 1, its most, SGD's
OPTIONAL = {"loss": (str, type(None)), "learning_rate": (float, int, type(None))}
FORMER = {  # names of fields in files of former versions
    "batch": "batch_size",
    "labels": "label_weight",
    "features": "feature_weight",
    "train": "weights",
}


@dataclass(frozen=True, slots=True)
class Recipe(RecipeOptions):
    """Without a `learning_rate` it follows how far from the original the model is as it comes.
    AdamW's is that of weights of a root mean square of 0.3; others get theirs in proportion.
    Weights of the loss stand beside 1 for what the original gives. `warmup` is a share of all
    steps, `ema` the share of an average that stays at a step, 0 without one. `mixed_precision`
    computes layers in bfloat16, or where a GPU has none in float16, and keeps weights in float32.

    Raises:
        UsageError: a value that a recipe cannot have.
    """

    warmup: float = 0.05
    clip: float = 1.0
    ema: float = 0.995
    seed: int = 0

    def __post_init__(self) -> None:
        RecipeOptions.__post_init__(self)
        if not self.clip > 0:
            raise UsageError(f"clip {self.clip}: give a number above 0, at most inf")
        for name in ("warmup", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)}: give a number from 0 up, below 1")

    def highest(self, loss: float) -> float:
        """The learning rate that is given, or else that of AdamW after the loss of the model as
        it comes, with its square root: the noise of the steps moves the outputs with the square
        of the rate, and may be no more than there is to win back. A heuristic: chains of
        ResNet-20 did alike at 2e-4 and 5e-4 at a loss of 2. The steps of SGD follow the loss by
        themselves."""
        if self.learning_rate is not None:
            return self.learning_rate
        return SGD if self.optimizer == "sgd" else min(MOST, ADAMW * math.sqrt(loss))


def recipe_of(options: TrainingOptions, run: RunOptions) -> Recipe:
    """The recipe that options say: that of their file, but for what was given beside it.

    Raises:
        UsageError: no such file, no such fields, or values that they cannot have; or a loss,
            which is code, named in the file and not given.
    """
    names = [field.name for field in fields(RecipeOptions)]
    given = {n: getattr(options, n) for n in names if n in (options.given or ())}
    if options.recipe is None or "seed" in (run.given or ()):
        given["seed"] = run.seed
    return from_file(options.recipe, given)


def asked_recipe(options: TrainingOptions, run: RunOptions) -> Recipe | None:
    """How plans are trained; None where they are not.

    Raises:
        UsageError: see `recipe_of`; or options of a training where there is none.
    """
    if options.finetune:
        return replace(recipe_of(options, run), seed=run.seed)
    for name in sorted(options.given or ()):
        raise UsageError(f"<<{name}={getattr(options, name)}>>: goes with <<finetune>>")
    return None


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
            f"<<recipe={path}>>: its loss, {said['loss']!r}, is code, which only the command line "
            "may name: pass <<loss>> to finetune, or take it out of the file"
        )
    return Recipe(**{**said, **given})


def _fields(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"<<recipe={path}>>: no JSON file that can be read ({error})") from error
    kinds = {field.name: type(field.default) for field in fields(Recipe)}
    if isinstance(found, dict):
        found = {FORMER.get(name, name): value for name, value in found.items()}
    if not isinstance(found, dict) or not set(found) <= set(kinds):
        raise UsageError(f"<<recipe={path}>>: give an object with some of {', '.join(kinds)}")
    if isinstance(found.get("augment"), list):
        found["augment"] = tuple(map(str, found["augment"]))
    for name, value in found.items():
        accepted = OPTIONAL.get(name, (float, int) if kinds[name] is float else (kinds[name],))
        is_odd = isinstance(value, bool) and kinds[name] is not bool
        if is_odd or not isinstance(value, accepted):
            raise UsageError(f"<<recipe={path}>>: {name} can not be {value!r}")
    return found
