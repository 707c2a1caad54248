"""What commands take beside the groups of options, and what is said of options alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxcp.options.option import Option

if TYPE_CHECKING:
    from onnxcp.runtime.providers import Target

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="The .onnx file.")]
Json = Annotated[bool, Option("Print JSON to stdout in place of text.")]


def warn_of_threads(target: "Target") -> "Target":
    """The same target; a line where more threads are asked for than can run at once."""
    from onnxcp.runtime.cores import WORDS, usable

    cores = usable()
    if target.threads > cores.count:
        typer.echo(
            f"warning: --threads {target.threads}: {cores.count} can run at once, "
            f"{WORDS[cores.why]}; the others wait, and times are those of waiting",
            err=True,
        )
    return target
