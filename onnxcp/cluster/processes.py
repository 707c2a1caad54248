"""Worker processes on this machine, which end with the run, however it ends."""

import os
import pickle
import signal
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from loky import ProcessPoolExecutor
from threadpoolctl import threadpool_info, threadpool_limits

from onnxcp.errors import OnnxcpError
from onnxcp.runtime.cores import usable
from onnxcp.runtime.parent_process import end_with
from onnxcp.storage import temporary

A = TypeVar("A")
B = TypeVar("B")


@contextmanager
def processes(jobs: int) -> Iterator[Executor | None]:
    """An executor of `jobs` processes, which end with the block; None for one job.

    Within the block, linear algebra in this process uses no more than the usable cores.
    """
    with _on_usable_cores():
        if jobs == 1:
            yield None
            return
        with _started(jobs) as executor:
            yield executor


@contextmanager
def _on_usable_cores() -> Iterator[None]:
    """Limit linear algebra libraries to the usable cores; they respect affinity, but no quota."""
    limit = usable().count
    if any(library["num_threads"] > limit for library in threadpool_info()):
        with threadpool_limits(limit):
            yield
    else:
        yield


@contextmanager
def _started(jobs: int) -> Iterator[Executor]:
    with _interrupts_ignored(), _loky_environment():
        executor = ProcessPoolExecutor(jobs, initializer=end_with, initargs=(os.getpid(),))
        started = [executor.submit(int) for _ in range(jobs)]
    with temporary.folder() as folder:
        try:
            wait(started)  # so that no process starts up while a model is timed
            yield _ByFile(executor, folder)
        finally:
            executor.shutdown(wait=True, kill_workers=True)


class _ByFile(Executor):
    """An executor that returns results in files, and only file names through its pipe.

    A process killed halfway through a large message would leave its reader waiting forever.
    """

    def __init__(self, executor: Executor, folder: Path) -> None:
        self._executor, self._folder = executor, folder

    def submit(self, fn: Callable[..., B], /, *args: object, **kwargs: object) -> Future[B]:
        stored = self._executor.submit(_stored, self._folder, partial(fn, *args, **kwargs))
        result: Future[B] = Future()
        stored.add_done_callback(lambda done: _set_result(result, done))
        return result


def _stored(folder: Path, work: Callable[[], B]) -> Path | B:
    """The file that holds the result of `work`; the result itself if the disk is full."""
    result = work()
    path = folder / f"{uuid.uuid4().hex}.pickle"
    try:
        path.write_bytes(pickle.dumps(result, pickle.HIGHEST_PROTOCOL))
    except OSError:
        return result
    return path


def _set_result(result: Future[B], done: Future[Path | B]) -> None:
    try:
        value = done.result()
        result.set_result(_loaded(value) if isinstance(value, Path) else value)
    except BaseException as error:  # belongs to the caller, whatever it is
        result.set_exception(error)


def _loaded(path: Path) -> Any:
    """The result in a file, which is removed."""
    result = pickle.loads(path.read_bytes())
    path.unlink()
    return result


def in_threads(work: Callable[[A], B], items: Iterable[A], count: int) -> Iterator[B]:
    """The results of `work` for each item, in order, `count` at once.

    For work that waits for other processes, to keep `count` of them busy.
    """
    if count == 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(count)
    try:
        yield from pool.map(work, items)
    finally:  # does not wait: Ctrl-C must not last as long as the fits in progress
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def naming_killed_process(name: str) -> Iterator[None]:
    """Within the block, a killed worker process is an error that names the layer `name`.

    Raises:
        OnnxcpError: a process was killed.
    """
    try:
        yield
    except BrokenExecutor as error:
        raise OnnxcpError(
            f"{name}: a fitting process was killed, probably for lack of memory; "
            "try a smaller <<jobs>>"
        ) from error


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started within the block ignore Ctrl-C.

    Ctrl-C reaches every process of a terminal; the main process ends the others. A child inherits
    ignored signals before it runs any code.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _loky_environment() -> Iterator[None]:
    """The environment variables for processes that loky starts within the block.

    - No warnings about semaphores of killed processes: loky's tracker cleans them up itself.
    - No restart of processes whose memory grows: loky does so if psutil is installed.
    - The current folder is not on the path at start; loky then sets the path of this process.
    """
    quiet = "ignore::UserWarning:loky.backend.resource_tracker"
    filters = os.environ.get("PYTHONWARNINGS")
    variables = {
        "PYTHONWARNINGS": f"{filters},{quiet}" if filters else quiet,
        "LOKY_MAX_MEMORY_LEAK_SIZE": str(2**62),
        "PYTHONSAFEPATH": "1",
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
