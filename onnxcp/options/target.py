"""Where models run, in which numbers, and how they are timed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from onnxcp.errors import UsageError
from onnxcp.options.option import Option

PRECISIONS = ("float32", "float16", "int8")


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """The machine that a model is made for.

    Raises:
        UsageError: an unknown precision.
    """

    PANEL: ClassVar[str | None] = "Target"

    latency: Annotated[
        Path | None, Option("Choose ranks for the machine of this table.", metavar="FILE")
    ] = None
    precision: Annotated[
        str | None,
        Option(
            "float32 (models as they are), float16 on GPUs, or int8, which needs samples.",
            metavar="NAME",
            choices=PRECISIONS,
        ),
    ] = None
    raise_opset: Annotated[
        bool, Option("Let int8 raise an opset that is too old for it, to 13.")
    ] = False
    provider: Annotated[
        str,
        Option(
            "Where models run: {choices}, or any other that ONNX Runtime offers (see doctor); "
            "NAME,cpu lets nodes run elsewhere.",
            metavar="NAME",
            choices=("onnxcp.runtime.provider_table:PROVIDERS",),
            is_open=True,
        ),
    ] = "cpu"
    provider_option: Annotated[
        tuple[str, ...], Option("An option of the provider. Repeatable.", metavar="K=V")
    ] = ()
    cuda_graph: Annotated[
        bool | None,
        Option(
            "Time replays of a CUDA graph, without the launches of single kernels.",
            shows_default=False,
        ),
    ] = None
    threads: Annotated[
        int,
        Option(
            "Threads of the runtime; default: the cores that this process may use, by what it is "
            "pinned to and its quota.",
            metavar="N",
        ),
    ] = 0
    iterations: Annotated[int, Option("Timed runs at most.", metavar="N", min=8)] = 200

    def __post_init__(self) -> None:
        if self.precision is not None:
            known_precision(self.precision)


def known_precision(name: str) -> str:
    """The same name. Raises UsageError for an unknown one."""
    if name not in PRECISIONS:
        raise UsageError(f"<<precision={name}>>: unknown; choose one of {', '.join(PRECISIONS)}")
    return name
