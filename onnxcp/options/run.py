"""What a run writes, what it goes on from, and the seed of all that is drawn in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from onnxcp.errors import UsageError
from onnxcp.options.option import Option, differing


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Files of a run beside its result, and its seed. `given` are names of options; without them
    those that differ from the defaults.

    Raises:
        UsageError: a run to go on with that is not named.
    """

    PANEL: ClassVar[str | None] = None

    work_dir: Annotated[
        Path | None,
        Option("Keep everything that is finished, so that <<resume>> can continue.", metavar="DIR"),
    ] = None
    resume: Annotated[bool, Option("Continue the run in <<work_dir>>.")] = False
    seed: Annotated[int, Option("Seed of fits and synthetic inputs.", metavar="N", min=0)] = 0
    report: Annotated[
        tuple[Path, ...],
        Option(
            "Write a report: {choices}. Repeatable.",
            metavar="FILE",
            choices=("onnxcp.report:WRITERS",),
        ),
    ] = ()
    overwrite: Annotated[bool, Option("Replace existing output files.")] = False
    given: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.given is None:
            object.__setattr__(self, "given", differing(self))
        if self.resume and self.work_dir is None:
            raise UsageError("<<resume>>: needs the <<work_dir>> of the run to go on with")
