"""Which layers are replaced, by which form, at which rank, and how that is searched."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from onnxcp.errors import UsageError
from onnxcp.options.option import Option

UNITS = {"s": 1, "m": 60, "h": 3600}  # seconds


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """How a plan is found, or the plan itself: ranks that are given, or a file.

    Raises:
        UsageError: a time that is none, or options that exclude each other.
    """

    PANEL: ClassVar[str | None] = "Plan"

    form: Annotated[
        str, Option("{choices}.", metavar="NAME", choices=("auto", "onnxcp.forms:FORMS"))
    ] = "auto"
    strategy: Annotated[
        str,
        Option(
            "How ranks are chosen: {choices}.",
            metavar="NAME",
            choices=("onnxcp.search:STRATEGIES",),
        ),
    ] = "knapsack"
    time_budget: Annotated[
        str | float | None,
        Option("End the search after T (90, 10m, 2h) with the best plan so far.", "T"),
    ] = None
    pareto: Annotated[
        Path | None, Option("Also write models along time against accuracy.", metavar="DIR")
    ] = None
    rank: Annotated[
        tuple[str, ...],
        Option(
            "Force ranks by node name: 32, or 1.5c for 1.5 × output channels, or as many as the "
            "kernel has. Repeatable.",
            metavar="'GLOB=R'",
        ),
    ] = ()
    include: Annotated[tuple[str, ...], Option("Only these nodes. Repeatable.", "GLOB")] = ()
    exclude: Annotated[tuple[str, ...], Option("Not these nodes. Repeatable.", "GLOB")] = ()
    plan: Annotated[Path | None, Option("Replay a plan exactly.", metavar="FILE")] = None
    exact: Annotated[
        bool,
        Option(
            "Only change the graph where it computes the same and is measured faster: no data, "
            "no budget, no loss."
        ),
    ] = False
    no_pass: Annotated[
        tuple[str, ...],
        Option(
            "With <<exact>>: a pass that is not tried, of {choices}. Repeatable.",
            metavar="NAME",
            choices=("onnxcp.graph.pass_table:PASSES",),
        ),
    ] = ()

    def __post_init__(self) -> None:
        if self.time_budget is not None:
            seconds(self.time_budget)
        if self.plan is not None and self.rank:
            raise UsageError("<<plan>> and <<rank>> exclude each other: a plan names every rank")
        if self.no_pass and not self.exact:
            raise UsageError(f"<<no_pass={self.no_pass[0]}>>: goes with <<exact>>")
        if self.exact and (self.rank or self.pareto is not None):
            other = "rank" if self.rank else "pareto"
            raise UsageError(f"<<exact>> and <<{other}>> exclude each other: no rank is chosen")

    @property
    def seconds(self) -> float | None:
        """What the search may take; None without an end."""
        return None if self.time_budget is None else seconds(self.time_budget)

    @property
    def is_forced(self) -> bool:
        """Whether ranks are given, not searched."""
        return bool(self.rank) or self.plan is not None


def seconds(given: str | float) -> float:
    """A time as 90, 90s, 10m or 2h in seconds.

    Raises:
        UsageError: no such time.
    """
    text = str(given)
    number, unit = (text[:-1], UNITS[text[-1]]) if text[-1:] in UNITS else (text, 1)
    try:
        time = float(number) * unit
    except ValueError:
        time = float("nan")
    if not 0 < time < float("inf"):
        raise UsageError(f"<<time_budget={given!r}>>: write it as 90, 10m or 2h")
    return time
