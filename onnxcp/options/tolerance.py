"""How far apart two models' outputs may be."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from onnxcp.options.option import Option

TOP_K = 5
STATS = ("elemwise", "max", "mean", "median")


@dataclass(frozen=True, slots=True)
class ToleranceOptions:
    """Bounds of the difference, for all outputs or for one, and what must be checked in full."""

    PANEL: ClassVar[str | None] = None

    rtol: Annotated[
        tuple[str, ...],
        Option("Relative tolerance, of one output or all.", metavar="[OUTPUT:]X"),
    ] = ()
    atol: Annotated[
        tuple[str, ...],
        Option("Absolute tolerance, of one output or all.", metavar="[OUTPUT:]X"),
    ] = ()
    check_error_stat: Annotated[
        tuple[str, ...],
        Option("What the tolerance bounds: {choices}.", metavar="[OUTPUT:]STAT", choices=STATS),
    ] = ()
    top_k: Annotated[int, Option("Strongest channels that agree.", metavar="K", min=1)] = TOP_K
    require_surgery: Annotated[
        bool,
        Option(
            "Fail where the surgery cannot be checked in full: a model of others, one in int8 or "
            "float16, tensors that training changed."
        ),
    ] = False
