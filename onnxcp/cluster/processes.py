"""Processes that fit, and that are gone when a run ends, however it ends."""

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
    """Processes for fits, gone when the block ends, however it ends; None for one job. Linear
    algebra here keeps to the cores that this process may use."""
    with _on_usable_cores():
        if jobs == 1:
            yield None
            return
        with _started(jobs) as executor:
            yield executor


@contextmanager
def _on_usable_cores() -> Iterator[None]:
    """Libraries of linear algebra know what a process is pinned to, and of no quota."""
    limit = usable().count
    if any(library["num_threads"] > limit for library in threadpool_info()):
        with threadpool_limits(limit):
            yield
    else:
        yield


@contextmanager
def _started(jobs: int) -> Iterator[Executor]:
    with _interrupts_ignored(), _left_alone():
        executor = ProcessPoolExecutor(jobs, initializer=end_with, initargs=(os.getpid(),))
        started = [executor.submit(int) for _ in range(jobs)]
    with temporary.folder() as folder:
        try:
            wait(started)  # so that nothing starts up while something is timed
            yield _ByFile(executor, folder)
        finally:
            executor.shutdown(wait=True, kill_workers=True)


class _ByFile(Executor):
    """An executor whose results come back as files, and only their names through its pipe: a
    process killed halfway through a large message would leave its reader waiting for ever."""

    def __init__(self, executor: Executor, folder: Path) -> None:
        self._executor, self._folder = executor, folder

    def submit(self, fn: Callable[..., B], /, *args: object, **kwargs: object) -> Future[B]:
        asked = self._executor.submit(_filed, self._folder, partial(fn, *args, **kwargs))
        given: Future[B] = Future()
        asked.add_done_callback(lambda done: _pass_on(done, given))
        return given


def _filed(folder: Path, work: Callable[[], B]) -> Path | B:
    """The file that holds what `work` makes; without room for one, what it makes itself."""
    made = work()
    path = folder / f"{uuid.uuid4().hex}.pickle"
    try:
        path.write_bytes(pickle.dumps(made, pickle.HIGHEST_PROTOCOL))
    except OSError:
        return made
    return path


def _pass_on(done: Future[Path | B], given: Future[B]) -> None:
    try:
        found = done.result()
        given.set_result(_unfiled(found) if isinstance(found, Path) else found)
    except BaseException as error:  # whatever it is belongs to who asked
        given.set_exception(error)


def _unfiled(path: Path) -> Any:
    made = pickle.loads(path.read_bytes())
    path.unlink()
    return made


def in_threads(work: Callable[[A], B], given: Iterable[A], count: int) -> Iterator[B]:
    """What `work` makes of each, in order, `count` at once: to keep as many processes busy."""
    if count == 1:
        yield from map(work, given)
        return
    pool = ThreadPoolExecutor(count)
    try:
        yield from pool.map(work, given)
    finally:  # without a wait: Ctrl-C must not last as long as the fits that were begun
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def while_alive(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenExecutor as error:
        raise OnnxcpError(
            f"{name}: a process that fits was killed, probably for lack of memory; "
            "try a smaller <<jobs>>"
        ) from error


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started inside never see Ctrl-C, which reaches every process of a terminal:
    the first one ends the others. Ignored signals are inherited, before a child runs a line."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _left_alone() -> Iterator[None]:
    """Processes started inside do not warn of semaphores that a killed one left: loky's
    tracker, which does, is also what cleans them up. Nor are they replaced, with a warning,
    for what a fit holds: so loky does where psutil is installed, which Dask brings. They start
    without the current folder on their path, and then get the path of this process."""
    quiet = "ignore::UserWarning:loky.backend.resource_tracker"
    warned = os.environ.get("PYTHONWARNINGS")
    wanted = {
        "PYTHONWARNINGS": f"{warned},{quiet}" if warned else quiet,
        "LOKY_MAX_MEMORY_LEAK_SIZE": str(2**62),
        "PYTHONSAFEPATH": "1",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
