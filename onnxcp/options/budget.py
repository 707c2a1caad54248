"""What a model may lose, and what it has to win."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from onnxcp.errors import UsageError
from onnxcp.options.option import Option

MAX_ERROR = 0.05  # without data, where no budget is given


@dataclass(frozen=True, slots=True)
class BudgetOptions:
    """The budget as it is given: `max_drop` "0.01" absolute or "1%" of the original; or
    `max_error`, the relative L2 change of the outputs.

    Raises:
        UsageError: a value that no budget can have, or options that exclude each other.
    """

    PANEL: ClassVar[str | None] = "Budget"

    metric: Annotated[
        str | Any | None,  # a function, too
        Option(
            "{choices}; or module:function[:lower], called with all outputs by name and the "
            "labels. What compares with labels needs them; the others compare with the original.",
            metavar="NAME",
            choices=("onnxcp.measure.metric_table:METRICS",),
            is_open=True,
        ),
    ] = None
    max_drop: Annotated[
        str | float | None,
        Option("Largest drop of the metric: 0.01 absolute, 1% relative.", metavar="X"),
    ] = None
    output_name: Annotated[
        tuple[str, ...],
        Option("An output that <<metric>> judges; default: all. Repeatable.", metavar="NAME"),
    ] = ()
    accept_baseline: Annotated[
        bool,
        Option(
            "Continue where the original is no better than a guess, or receives values it does not "
            "expect."
        ),
    ] = False
    max_error: Annotated[
        float | None,
        Option(
            f"Largest relative L2 change of the outputs; the budget without data: {MAX_ERROR:g}.",
            metavar="X",
        ),
    ] = None
    target_speedup: Annotated[
        float | None,
        Option("Lose as little as possible at X times the speed, as 2.0.", metavar="X"),
    ] = None
    allow_unchanged: Annotated[bool, Option("If nothing is faster, copy MODEL and exit 0.")] = False

    def __post_init__(self) -> None:
        if self.max_drop is not None and self.max_error is not None:
            raise UsageError("<<max_drop>> and <<max_error>> exclude each other: give one budget")
        if self.max_error is not None and not 0 < self.max_error < 1:
            raise UsageError(f"<<max_error={self.max_error}>>: give a number between 0 and 1")
        if self.max_error is not None and (self.metric is not None or self.output_name):
            raise UsageError(
                "<<metric>> and <<output_name>> say what <<max_drop>> bounds: leave it or "
                "<<max_error>> out"
            )
        if self.target_speedup is not None and not 1 < self.target_speedup < 1000:
            raise UsageError(
                f"<<target_speedup={self.target_speedup:g}>>: give more than 1, as 2.0"
            )
        if self.max_drop is not None:
            parse_drop(self.max_drop)

    @property
    def is_given(self) -> bool:
        """Whether a budget of accuracy is given."""
        return self.max_drop is not None or self.max_error is not None


def parse_drop(given: str | float) -> tuple[float, bool]:
    """`0.01` as (0.01, False), absolute; `1%` as (0.01, True), of the original's.

    Raises:
        UsageError: not a number, negative, or not finite.
    """
    text = str(given)
    is_relative = text.strip().endswith("%")
    try:
        value = float(text.strip().removesuffix("%")) / (100 if is_relative else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise UsageError(
            f"<<max_drop={given!r}>>: give an absolute drop as 0.01, a relative one as 1%"
        )
    return value, is_relative
