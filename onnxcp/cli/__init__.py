"""Options in, exit code out; the only room that prints.

Results go to stdout, progress and messages to stderr. Exit codes: 0 done, 1 a clear "no"
(budget not met, not faster, verification failed), 2 wrong use or unreadable input,
3 provider, optional package or cluster missing, 70 our bug, 130 interrupted.

Commands import what they need when they run, so that `--help` answers at once.
"""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from onnxcp import __version__
from onnxcp.cli.benchmark import benchmark
from onnxcp.cli.doctor import doctor
from onnxcp.cli.finetune import finetune
from onnxcp.cli.help import help
from onnxcp.cli.inspect import inspect
from onnxcp.cli.optimize import optimize
from onnxcp.cli.profile import profile
from onnxcp.cli.verify import verify

WrongUse: Any = typer.BadParameter.__base__  # click's UsageError, which typer does not export


class OneLine(TyperGroup):
    """Says wrong use in one line, as all other errors are said."""

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except WrongUse as error:
            command = error.ctx.command_path if error.ctx else "onnxcp"
            problem = " ".join(error.format_message().split()).rstrip(".")
            if problem:  # else it was no argument at all, and help is printed
                typer.echo(f"error: {problem}; see {command} --help", err=True)
            sys.exit(2)
        sys.exit(code)


app = typer.Typer(
    name="onnxcp",
    cls=OneLine,
    help="Make a trained CNN measurably faster on your target, within your accuracy budget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (optimize, inspect, verify, benchmark, profile, finetune, doctor, help):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"onnxcp {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


def main() -> None:
    """The `onnxcp` command."""
    app()
