"""The connection to a Dask scheduler; the only module that uses Dask.

Every request has a time limit, because Dask waits forever for a machine that accepts a connection
and then does not answer.
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

CONNECT_SECONDS = 10.0  # for a scheduler to answer, and to answer again once it was lost
START_SECONDS = 30.0  # for the first worker to join

INSTALL = "<<cluster>>: needs Dask: pip install 'onnxcp[cluster]'"
SILENCED = ("distributed", "tornado")  # loggers; our errors report what they would log

Request = Callable[["Client"], Awaitable[Any]]

FITTING_CODE = ("chain", "fitting", "forms")  # must be the same on every worker


class Connection:
    """A Dask client that any thread may use; its event loop runs in a thread of its own."""

    def __init__(self, address: str, client: "Client", loop: asyncio.AbstractEventLoop) -> None:
        self.address, self._client, self._loop = address, client, loop

    @property
    def status(self) -> str:
        """Dask's status: running, connecting (at most CONNECT_SECONDS), closing or closed."""
        return str(self._client.status)

    def call(self, key: str, function: Callable[..., Any], arguments: Sequence[Any]) -> Future[Any]:
        """The result of a function that some worker runs.

        Arguments that are handles from `send` arrive as the values sent. Dask estimates durations
        by the prefix of the key.
        """
        return self._begin(lambda c: c.gather(c.submit(function, *arguments, key=key)))

    def send(self, key: str, value: object) -> Future[Any]:
        """A handle to a value that a worker holds for as long as the handle is alive.

        The handle's status is "finished" until that worker is lost.
        """
        return self._begin(lambda c: c.scatter({key: value}))

    def ask(self, request: Request, seconds: float) -> Any:
        """The result of a request.

        Raises:
            TimeoutError: there is no answer within `seconds`.
            Exception: whatever Dask raises.
        """
        answer = self._begin(request)
        if not wait([answer], seconds).done:
            answer.cancel()
            raise TimeoutError(f"no answer in {seconds:.0f} s")
        return answer.result()

    def threads(self, seconds: float) -> int:
        """The number of threads of all workers. Raises as `ask` does."""
        return sum(self.ask(lambda c: c.nthreads(), seconds).values())

    def close(self) -> None:
        """Close the connection; requests that still wait end with an error."""
        with contextlib.suppress(Exception):  # the scheduler may be gone
            self.ask(lambda c: c.close(), CONNECT_SECONDS)

    def _begin(self, request: Request) -> Future[Any]:
        async def answer() -> Any:
            try:
                return await request(self._client)
            except CancelledError as error:  # asyncio would turn it into its own BaseException
                raise ConnectionError(f"cancelled: {error}") from error

        return asyncio.run_coroutine_threadsafe(answer(), self._loop)


@contextlib.contextmanager
def connected(address: str) -> Iterator[tuple[Connection, int]]:
    """A connection to a scheduler and the number of its workers' threads.

    The connection is closed when the block ends, also by an exception.

    Raises:
        MissingPackage: Dask is not installed.
        ClusterError: no scheduler answers, it has no workers, or they run other versions.
    """
    dask = _dask()
    with _silenced(), _event_loop() as loop:
        connection = _line(dask, address, loop)
        try:
            yield connection, _threads(connection)
        finally:
            connection.close()


def _dask() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Dask's dependencies warn about each other
            import distributed
    except ImportError as error:
        raise MissingPackage(INSTALL) from error
    module: ModuleType = distributed
    return module


def _line(dask: ModuleType, address: str, loop: asyncio.AbstractEventLoop) -> Connection:
    async def new() -> "Client":
        options = {"asynchronous": True, "set_as_default": False, "name": "onnxcp"}
        return dask.Client(address, timeout=CONNECT_SECONDS, **options)  # begins to connect

    connection = Connection(address, asyncio.run_coroutine_threadsafe(new(), loop).result(), loop)
    try:
        connection.ask(lambda c: c, CONNECT_SECONDS + 1)
    except BaseException as error:
        connection.close()
        if not isinstance(error, Exception):
            raise
        raise ClusterError(
            f"<<cluster={address}>>: no Dask scheduler answers: {cause(error)}; start one with "
            "`dask scheduler`, and give the address that it prints"
        ) from error
    return connection


def _threads(connection: Connection) -> int:
    """The number of threads of all workers, once one has joined and the versions are checked.

    Raises:
        ClusterError: no worker joins, or scheduler or workers run other versions.
    """
    try:
        connection.ask(lambda c: c.wait_for_workers(1, timeout=START_SECONDS), START_SECONDS + 1)
        answers = connection.ask(lambda c: c.run(versions, on_error="return"), START_SECONDS)
        threads = connection.threads(START_SECONDS)
    except Exception as error:
        raise ClusterError(
            f"<<cluster={connection.address}>>: no worker is ready: {cause(error)}; start some "
            f"with `dask worker {connection.address}`"
        ) from error
    versions_by_name = {"the scheduler": _scheduler_versions(connection)}
    versions_by_name |= {f"worker {name}": answer for name, answer in answers.items()}
    for peer, answer in versions_by_name.items():
        refuse_other(answer, versions(), f"<<cluster={connection.address}>>: {peer}")
    return threads


def _scheduler_versions(connection: Connection) -> Any:
    try:
        return connection.ask(lambda c: c.run_on_scheduler(versions), START_SECONDS)
    except Exception as error:
        return error


@functools.cache
def versions() -> dict[str, str]:
    """Versions of everything on this machine that changes the numbers of a fit or evaluation."""
    return {
        "onnxcp": __version__,
        "fitting code": code_version(FITTING_CODE)[:12],
        "numpy": metadata.version("numpy"),
        "scipy": metadata.version("scipy"),
        "onnxruntime": str(runtime().__version__),
    }


def refuse_other(
    actual: Mapping[str, str] | Exception, expected: Mapping[str, str], where: str
) -> None:
    """Raises ClusterError if a machine's versions differ or could not be read."""
    if isinstance(actual, Exception):
        differing = [cause(actual)]
    else:
        differing = [
            f"{name} {actual.get(name)}, here {version}"
            for name, version in expected.items()
            if actual.get(name) != version
        ]
    if differing:
        raise ClusterError(f"{where}: {differing[0]}; install the same packages on all machines")


def worker() -> str:
    """The name of the worker that runs this call, for messages."""
    from distributed import get_worker

    return f"worker {get_worker().address}"


def is_deadly(error: BaseException | None) -> bool:
    """Whether Dask gave up on a task because several workers died while they ran it."""
    from distributed import KilledWorker

    return isinstance(error, KilledWorker)


def cause(error: BaseException | None) -> str:
    """An exception's message in one line, without a final period; its type if there is none."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


@contextlib.contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own, which does not log what Dask leaves behind."""
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
        thread.join(CONNECT_SECONDS)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Within the block, Dask and its event loop neither log nor warn."""
    loggers = [n for n in logging.root.manager.loggerDict if n.split(".")[0] in SILENCED]
    before = {name: logging.getLogger(name).level for name in {*loggers, *SILENCED}}
    for name in before:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="distributed|dask|tornado")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
