"""The terminal: errors as one line, progress with an estimate, results on stdout."""

import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from onnxcp.cli.flags import as_flags
from onnxcp.errors import MissingPackage, OnnxcpError
from onnxcp.options.option import Option
from onnxcp.progress import NOTE

if TYPE_CHECKING:
    from onnxcp.progress import Progress

BUG, INTERRUPTED = 70, 130
WIDEST = 120
WHOLE = "this command needs all of: pip install 'onnxcp[cpu]', or 'onnxcp[gpu]'"
ENDING = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class ConsoleOptions:
    """How much is said beside the result."""

    PANEL: ClassVar[str | None] = None

    quiet: Annotated[bool, Option("No progress; print the verdict only.", short="q")] = False
    verbose: Annotated[
        int, Option("Log phases; -vv adds tracebacks.", short="v", is_counted=True)
    ] = 0


@dataclass(slots=True)
class Ending:
    """How a command ends: `interrupted` says what is there if it is interrupted."""

    interrupted: Callable[[], str] = lambda: "interrupted; no output was written"


@contextmanager
def errors_as_lines(verbose: int) -> Iterator[Ending]:
    """Whatever goes wrong inside ends the command with one line and the documented code."""
    previous = {number: signal.signal(number, _interrupt) for number in ENDING}
    ending = Ending()
    try:
        yield ending
    except BrokenPipeError:
        raise  # a reader that had enough, as `head`: typer ends without a word
    except OnnxcpError as error:
        _fail(as_flags(error.text), error.exit_code, verbose)
    except KeyboardInterrupt:
        _fail(ending.interrupted(), INTERRUPTED, verbose)
    except (typer.Exit, SystemExit):
        raise
    except ModuleNotFoundError as error:  # some machines have only what timing needs
        _fail(f"{error.name} is not installed; {WHOLE}", MissingPackage.exit_code, verbose)
    except MemoryError:
        _fail("out of memory; try a smaller --batch or fewer --samples", 2, verbose)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        hint = "check the path, its permissions and the space left on the disk"
        _fail(f"{where}{error.strerror or error}; {hint}", 2, verbose)
    except Exception as error:
        what = f"internal error: {type(error).__name__}: {error}"
        hint = "this is a bug in onnxcp; please report it with the output of -vv"
        _fail(f"{what}; {hint}", BUG, verbose)
    finally:
        for number, handler in previous.items():
            if signal.getsignal(number) is _interrupt:  # else the process is ending, see there
                signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first signal ends the run. Later ones, as of an impatient Ctrl-C or of `timeout`,
    which sends two, must not keep it from tidying up, to the end of the process."""
    del number, frame
    for ending in ENDING:
        signal.signal(ending, signal.SIG_IGN)
    raise KeyboardInterrupt


def _fail(message: str, code: int, verbose: int) -> None:
    if verbose >= 2:
        traceback.print_exc()
    from onnxcp.escape import visible

    typer.echo(f"error: {visible(' '.join(message.split()))}", err=True)
    raise typer.Exit(code)


def width() -> int:
    """Columns to write for; a pipe gets as many as a wide terminal."""
    columns = shutil.get_terminal_size((WIDEST, 24)).columns
    return min(columns, WIDEST)


@contextmanager
def progress_shown(asked: ConsoleOptions) -> "Iterator[Progress]":
    """Bars with an estimate on a terminal; with -v one line a phase anywhere."""
    if not asked.quiet and sys.stderr.isatty():
        with _bars() as show:
            yield lambda phase, done, total: show(as_flags(phase), done, total)
    elif asked.verbose:
        show = _lines()
        yield lambda phase, done, total: show(as_flags(phase), done, total)
    else:
        yield _nothing


def _nothing(phase: str, done: int, total: int) -> None:
    del phase, done, total


def _lines() -> Callable[[str, int, int], None]:
    begin, last, lock = time.perf_counter(), "", threading.Lock()

    def show(phase: str, done: int, total: int) -> None:
        nonlocal last
        del done
        with lock:
            if phase != last:
                last = last if total == NOTE else phase
                typer.echo(f"[{time.perf_counter() - begin:7.1f} s] {phase}", err=True)

    return show


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns: list[Any] = [
        TextColumn("{task.description:<20}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}
        lock = threading.Lock()  # fits report from several threads

        def show(phase: str, done: int, total: int) -> None:
            with lock:
                if total == NOTE:
                    bars.console.print(phase)
                    return
                if phase not in tasks:
                    tasks[phase] = bars.add_task(phase, total=total)
                for other, task in tasks.items():
                    bars.update(task, visible=other == phase)
                bars.update(tasks[phase], completed=done, total=total)

        yield show
