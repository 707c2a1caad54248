"""The line to a Dask scheduler; the only module that knows Dask.

Whatever is asked over it is given a limit of time, because Dask itself waits for ever for a
machine that accepts a connection and then says nothing.
"""

import asyncio
import contextlib
import functools
import logging
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, wait
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any

from onnxcp import __version__
from onnxcp.errors import ClusterError, MissingPackage
from onnxcp.runtime.ort import runtime
from onnxcp.storage.keys import code_version

if TYPE_CHECKING:
    from distributed import Client

CONNECT = 10.0  # seconds for a scheduler to answer, and to answer again once it was lost
START = 30.0  # seconds for the first worker to join

INSTALL = "<<cluster>>: needs Dask: pip install 'onnxcp[cluster]'"
SILENCED = ("distributed", "tornado")  # what they would say, our errors say

Work = Callable[["Client"], Awaitable[Any]]

FITTING = ("chain", "fitting", "forms")  # code that must be the same on every worker


class Line:
    """A Dask client, asked from any thread; its event loop is that of another one."""

    def __init__(self, address: str, client: "Client", loop: asyncio.AbstractEventLoop) -> None:
        self.address, self._client, self._loop = address, client, loop

    @property
    def status(self) -> str:
        """Of Dask: running, connecting (for at most CONNECT seconds), closing or closed."""
        return str(self._client.status)

    def call(self, key: str, function: Callable[..., Any], arguments: Sequence[Any]) -> Future[Any]:
        """What a function gives on some worker; Dask learns how long it takes by the key's
        beginning. What was sent before arrives in place of its handle."""
        return self._begin(lambda c: c.gather(c.submit(function, *arguments, key=key)))

    def send(self, key: str, value: object) -> Future[Any]:
        """A handle on something that a worker then holds, for as long as the handle is kept;
        its status is "finished" until that worker is lost."""
        return self._begin(lambda c: c.scatter({key: value}))

    def ask(self, work: Work, seconds: float) -> Any:
        """What comes of some work. Raises TimeoutError, or whatever Dask does."""
        answer = self._begin(work)
        if not wait([answer], seconds).done:
            answer.cancel()
            raise TimeoutError(f"silence for {seconds:.0f} s")
        return answer.result()

    def threads(self, seconds: float) -> int:
        """Of all workers."""
        return sum(self.ask(lambda c: c.nthreads(), seconds).values())

    def close(self) -> None:
        """Work that was begun ends with an error."""
        with contextlib.suppress(Exception):  # there may be nobody left to say goodbye to
            self.ask(lambda c: c.close(), CONNECT)

    def _begin(self, work: Work) -> Future[Any]:
        async def begun() -> Any:
            try:
                return await work(self._client)
            except CancelledError as error:  # asyncio would make one of its own of it, no Exception
                raise ConnectionError(f"cancelled: {error}") from error

        return asyncio.run_coroutine_threadsafe(begun(), self._loop)


@contextlib.contextmanager
def connected(address: str) -> Iterator[tuple[Line, int]]:
    """The line to a scheduler, and how many threads its workers have; closed when the block
    ends, however it ends.

    Raises:
        MissingPackage: Dask is not installed.
        ClusterError: no scheduler answers, it has no workers, or they run other versions.
    """
    dask = _dask()
    with _silenced(), _event_loop() as loop:
        line = _line(dask, address, loop)
        try:
            yield line, _threads(line)
        finally:
            line.close()


def _dask() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its dependencies, about one another
            import distributed
    except ImportError as error:
        raise MissingPackage(INSTALL) from error
    module: ModuleType = distributed
    return module


def _line(dask: ModuleType, address: str, loop: asyncio.AbstractEventLoop) -> Line:
    async def new() -> "Client":
        options = {"asynchronous": True, "set_as_default": False, "name": "onnxcp"}
        return dask.Client(address, timeout=CONNECT, **options)  # begins to connect

    line = Line(address, asyncio.run_coroutine_threadsafe(new(), loop).result(), loop)
    try:
        line.ask(lambda c: c, CONNECT + 1)
    except BaseException as error:
        line.close()
        if not isinstance(error, Exception):
            raise
        raise ClusterError(
            f"<<cluster={address}>>: no Dask scheduler answers: {cause(error)}; start one with "
            "`dask scheduler`, and give the address that it prints"
        ) from error
    return line


def _threads(line: Line) -> int:
    """Of all workers, once there are any, and all have what we have.

    Raises:
        ClusterError: else.
    """
    try:
        line.ask(lambda c: c.wait_for_workers(1, timeout=START), START + 1)
        of_workers = line.ask(lambda c: c.run(versions, on_error="return"), START)
        threads = line.threads(START)
    except Exception as error:
        raise ClusterError(
            f"<<cluster={line.address}>>: no worker is ready: {cause(error)}; start some with "
            f"`dask worker {line.address}`"
        ) from error
    found = {"the scheduler": _of_scheduler(line)}
    found |= {f"worker {name}": answer for name, answer in of_workers.items()}
    for who, answer in found.items():
        refuse_other(answer, versions(), f"<<cluster={line.address}>>: {who}")
    return threads


def _of_scheduler(line: Line) -> Any:
    try:
        return line.ask(lambda c: c.run_on_scheduler(versions), START)
    except Exception as error:
        return error


@functools.cache
def versions() -> dict[str, str]:
    """Of all here that the numbers of a fit or an evaluation depend on."""
    return {
        "onnxcp": __version__,
        "fitting code": code_version(FITTING)[:12],
        "numpy": metadata.version("numpy"),
        "scipy": metadata.version("scipy"),
        "onnxruntime": str(runtime().__version__),
    }


def refuse_other(found: Mapping[str, str] | Exception, wanted: Mapping[str, str], who: str) -> None:
    """Raises ClusterError for versions that differ, or that could not be told."""
    if isinstance(found, Exception):
        differing = [cause(found)]
    else:
        differing = [
            f"{k} {found.get(k)}, here {v}" for k, v in wanted.items() if found.get(k) != v
        ]
    if differing:
        raise ClusterError(f"{who}: {differing[0]}; install the same packages on all machines")


def worker() -> str:
    """The worker that this runs on."""
    from distributed import get_worker

    return f"worker {get_worker().address}"


def is_deadly(error: BaseException | None) -> bool:
    """Whether a task took one worker after the other with it."""
    from distributed import KilledWorker

    return isinstance(error, KilledWorker)


def cause(error: BaseException | None) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


@contextlib.contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own, which says nothing of what Dask leaves behind."""
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        ended = asyncio.Event()
        ready.set_result((asyncio.get_running_loop(), ended))
        await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True, name="onnxcp-dask")
    thread.start()
    loop, ended = ready.result()
    loop.set_exception_handler(lambda *_: None)
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(CONNECT)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Dask and its event loop log and warn of nothing inside."""
    known = [n for n in logging.root.manager.loggerDict if n.split(".")[0] in SILENCED]
    before = {name: logging.getLogger(name).level for name in {*known, *SILENCED}}
    for name in before:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="distributed|dask|tornado")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
