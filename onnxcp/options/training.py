"""How a rewritten model is trained to give what the original gives."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from onnxcp.errors import UsageError
from onnxcp.options.option import Option, differing

OPTIMIZERS = ("adamw", "sgd")
DEVICES = ("cpu", "cuda")
BATCH_NORMS = ("frozen", "recalibrated", "trained")
AUGMENTATIONS = ("flip", "crop", "mix")
CHAINS, ALL = "chains", "all"
LARGEST_RATE, LARGEST_TEMPERATURE = 10.0, 100.0


@dataclass(frozen=True, slots=True)
class RecipeOptions:
    """Choices that a recipe file may hold, too. Weights of the loss stand beside 1 for what the
    original gives.

    Raises:
        UsageError: a value that a recipe cannot have.
    """

    PANEL: ClassVar[str | None] = "Training"

    epochs: Annotated[int, Option("Passes over the data.", metavar="N")] = 10
    # on two cores a quarter less time an epoch than at 128, for the caches
    batch_size: Annotated[int, Option("Batch size of a training step.", metavar="N")] = 64
    learning_rate: Annotated[
        float | None,
        Option("Peak learning rate; by default it follows what the candidate loses.", metavar="X"),
    ] = None
    optimizer: Annotated[str, Option("{choices}.", metavar="NAME", choices=OPTIMIZERS)] = "adamw"
    weight_decay: Annotated[float, Option("Weight decay of the optimizer.", metavar="X", min=0)] = (
        0.0
    )
    # at less, sure answers to images that it was trained on say little
    temperature: Annotated[float, Option("Distillation temperature.", metavar="T")] = 12.0
    label_weight: Annotated[
        float, Option("Weight of the cross-entropy with the labels.", metavar="X")
    ] = 0.0
    feature_weight: Annotated[
        float, Option("Weight of the outputs of replaced layers.", metavar="X")
    ] = 0.0
    stability: Annotated[
        float, Option("Weight of the chains' sensitivity.", metavar="X", min=0)
    ] = 0.0
    loss: Annotated[
        str | None,
        Option(
            "A loss of your own, (outputs, labels) -> tensor, added to the others.",
            metavar="MODULE:FUNCTION",
        ),
    ] = None
    weights: Annotated[str, Option("chains, all, or a glob of nodes.", metavar="WHICH")] = CHAINS
    batch_norm: Annotated[str, Option("{choices}.", metavar="HOW", choices=BATCH_NORMS)] = "frozen"
    augment: Annotated[
        tuple[str, ...],
        Option(
            "Some of {choices}, separated by commas; images only.",
            metavar="LIST",
            choices=AUGMENTATIONS,
            is_open=True,
            is_list=True,
        ),
    ] = ()
    patience: Annotated[int, Option("Stop after N epochs without gain; 0: never.", metavar="N")] = 0
    device: Annotated[
        str, Option("Where the training runs: {choices}.", metavar="NAME", choices=DEVICES)
    ] = "cpu"
    mixed_precision: Annotated[bool, Option("Train in bfloat16 where that is safe: on a GPU.")] = (
        False
    )

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("patience", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"<<{name}={getattr(self, name)}>>: must be at least {least}")
        self._refuse_numbers()
        self._refuse_choices()
        if "mix" in self.augment and (self.label_weight or self.loss):
            raise UsageError("<<augment=mix>>: mixed images have no labels; leave it or these out")

    def _refuse_numbers(self) -> None:
        for name, value, most in (
            ("learning_rate", self.learning_rate, LARGEST_RATE),
            ("temperature", self.temperature, LARGEST_TEMPERATURE),
        ):
            if value is not None and not 0 < value <= most:
                raise UsageError(f"<<{name}={value}>>: give a number above 0, at most {most:g}")
        for name in ("label_weight", "feature_weight", "stability"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"<<{name}={getattr(self, name)}>>: must be at least 0")

    def _refuse_choices(self) -> None:
        for name, choice, choices in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("batch_norm", self.batch_norm, BATCH_NORMS),
            ("device", self.device, DEVICES),
            *(("augment", one, AUGMENTATIONS) for one in self.augment),
        ):
            if choice not in choices:
                raise UsageError(f"<<{name}={choice}>>: choose one of {', '.join(choices)}")


@dataclass(frozen=True, slots=True)
class TrainingOptions(RecipeOptions):
    """Whether a plan is trained, and how: what is `given` counts instead of what the file
    `recipe` says. `given` are names of options; without them those that differ from the
    defaults."""

    finetune: Annotated[
        bool,
        Option(
            "Train what is rewritten to give what MODEL gives, and find the fastest plan within "
            "the budget after that. Needs PyTorch."
        ),
    ] = False
    recipe: Annotated[
        Path | None,
        Option(
            "More choices of the training, as a report of finetune gives them.",
            metavar="FILE.json",
        ),
    ] = None
    given: frozenset[str] | None = None

    def __post_init__(self) -> None:
        RecipeOptions.__post_init__(self)
        if self.given is None:
            object.__setattr__(self, "given", differing(self))
