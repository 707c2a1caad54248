"""Workers of a Dask cluster: calls done far away, and what happens where some of it dies.

A call takes a function and what it needs; a `Parcel` among that is sent to a worker once and
stays there for as long as it is kept here. A call whose worker dies is done again by another,
with its parcels sent anew; one whose cluster dies ends with a `ClusterError`, and never hangs.

What the function raises comes back as a value, so that whatever Dask raises is of the cluster.
Every thread of a worker does one call at a time, on one thread of its own. The scheduler only
hands on, but unpickles what it hands on, so that it needs the same packages.

Numbers are those of a run without a cluster where the workers' packages and kind of processor
are the same; the packages are checked.
"""

import asyncio
import contextlib
import functools
import logging
import threading
import time
import uuid
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from threadpoolctl import threadpool_limits

from onnxcp import __version__, store
from onnxcp.errors import ClusterError, MissingPackage
from onnxcp.providers import runtime

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT = 10.0  # seconds for a scheduler to answer, and to answer again once it was lost
START = 30.0  # seconds for the first worker to join
LOST = 60.0  # seconds without any worker after which a cluster counts as dead
PAUSE = 1.0  # seconds between two looks at whether it is
ATTEMPTS = 3  # at a call whose parcels die with the worker that holds them

INSTALL = "--cluster: needs Dask: pip install 'onnxcp[cluster]'"
NOTHING_LOST = "nothing finished is lost: fits are kept in the cache; run again"
SILENCED = ("distributed", "tornado", "asyncio")  # what they would say, our errors say


class Parcel(ABC):
    """Something large that many calls need. A worker keeps it until it is collected here."""

    __slots__ = ("__weakref__",)

    @abstractmethod
    def packed(self) -> object:
        """What travels; asked for again where the worker that held it was lost."""


class Cluster:
    """A scheduler's workers. `executor` has a thread here for each of their `threads`, to
    `call` from."""

    def __init__(self, address: str, client: "Client", threads: int) -> None:
        self.address, self.threads = address, threads
        self.executor: Executor = ThreadPoolExecutor(threads, "onnxcp-cluster")
        self._client, self._versions = client, versions()
        self._sent: WeakKeyDictionary[Parcel, Future[Any]] = WeakKeyDictionary()
        self._sending, self._looking = threading.Lock(), threading.Lock()
        self._looked = self._alive = time.monotonic()
        self._dead = ""

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function of this package gives on some worker, `Parcel`s handed to it unpacked.

        Raises:
            ClusterError: the cluster is lost, or its workers die of this call.
            Exception: whatever the function raises.
        """
        from distributed import KilledWorker

        for _ in range(ATTEMPTS):
            try:
                answer = self._answer(function, arguments)
            except _Failure as failure:  # mostly a worker was lost, and parcels with it
                cause = failure.__cause__
                if isinstance(cause, KilledWorker):
                    break
                self._wait_for_workers()
            else:
                if isinstance(answer, Exception):
                    raise answer
                return answer
        raise ClusterError(self._given_up(function, cause)) from cause

    def close(self) -> None:
        """Let go at once: calls that are not done yet end with an error."""
        self.executor.shutdown(wait=False, cancel_futures=True)
        _close(self._client)
        self.executor.shutdown()

    def _answer(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        sent = [self._parcel(a) if isinstance(a, Parcel) else a for a in arguments]
        key = f"{function.__name__}-{uuid.uuid4().hex}"  # by its name Dask learns how long it takes

        def asked() -> Coroutine[Any, Any, Any]:
            future = self._client.submit(_answered, self._versions, function, *sent, key=key)
            return self._client.gather(future, asynchronous=True)

        return self._awaited(asked)

    def _parcel(self, parcel: Parcel) -> "Future[Any]":
        """Sent one at a time: they share the wire anyway."""
        with self._sending:
            known = self._sent.get(parcel)
            if known is None or known.status != "finished":
                name = f"{type(parcel).__name__}-{uuid.uuid4().hex}"
                packed = {name: parcel.packed()}
                scatter = functools.partial(self._client.scatter, packed, asynchronous=True)
                known = self._sent[parcel] = self._awaited(scatter)[name]
            return known

    def _awaited(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """What Dask's event loop makes of some work; raises _Failure, or ClusterError."""
        begun = time.monotonic()
        self._refuse_dead(begun)
        try:
            answer = asyncio.run_coroutine_threadsafe(work(), self._client.loop.asyncio_loop)
            while not wait([answer], PAUSE).done:
                self._refuse_dead(begun)
            return answer.result()
        except ClusterError:
            answer.cancel()
            raise
        except Exception as error:
            raise _Failure from error

    def _wait_for_workers(self) -> None:
        begun = time.monotonic()
        while self._client.status == "connecting" or not self._has_workers():
            self._refuse_dead(begun)
            time.sleep(PAUSE)

    def _refuse_dead(self, since: float) -> None:
        """Raises ClusterError if the scheduler is gone, or there was no worker for too long."""
        with self._looking:  # one look for all who wait
            if time.monotonic() - self._looked >= PAUSE:
                if self._has_workers():
                    self._alive = time.monotonic()
                self._looked = time.monotonic()
            if self._client.status in ("closing", "closed"):
                self._dead = f"the scheduler is gone and did not come back in {CONNECT:.0f} s"
            elif time.monotonic() - max(since, self._alive) > LOST:
                self._dead = f"no worker was heard of for {LOST:.0f} s"
            if self._dead:
                raise ClusterError(f"--cluster {self.address}: {self._dead}; {NOTHING_LOST}")

    def _has_workers(self) -> bool:
        with contextlib.suppress(Exception):
            return bool(self._client.nthreads(callback_timeout=PAUSE))
        return False

    def _given_up(self, function: Callable[..., Any], cause: BaseException | None) -> str:
        return (
            f"--cluster {self.address}: {function.__name__} failed on one worker after the other; "
            f"those that die lack memory: give them more, or fewer threads each; {NOTHING_LOST}. "
            f"Dask says: {_cause(cause)}"
        )


class _Failure(Exception):
    """Of Dask, which is its cause, and not of what was called."""


@contextlib.contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """The workers of the scheduler at an address; let go when the block ends, however it ends.

    Raises:
        MissingPackage: Dask is not installed.
        ClusterError: no scheduler answers, it has no workers, or they run other versions.
    """
    dask = _dask()
    with _silenced():
        client = _client(dask, address)
        try:
            cluster = Cluster(address, client, _threads(client, address))
            try:
                yield cluster
            finally:
                cluster.close()
        finally:
            _close(client)


def _dask() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its dependencies, about one another
            import distributed
    except ImportError as error:
        raise MissingPackage(INSTALL) from error
    module: ModuleType = distributed
    return module


def _client(dask: ModuleType, address: str) -> "Client":
    try:
        return dask.Client(address, timeout=CONNECT, set_as_default=False, name="onnxcp")
    except Exception as error:
        raise ClusterError(
            f"--cluster {address}: no Dask scheduler answers: {_cause(error)}; start one with "
            "`dask scheduler`, and give the address that it prints"
        ) from error


def _close(client: "Client") -> None:
    with contextlib.suppress(Exception):  # there may be nobody left to say goodbye to
        client.close(timeout=CONNECT)


def _threads(client: "Client", address: str) -> int:
    """Of all workers, once there are any, and all have what we have.

    Raises:
        ClusterError: else.
    """
    try:
        client.wait_for_workers(1, timeout=START)
        answers = {f"worker {n}": a for n, a in client.run(versions, on_error="return").items()}
        answers["the scheduler"] = _on_scheduler(client)
        threads: int = sum(client.nthreads().values())
    except Exception as error:
        raise ClusterError(
            f"--cluster {address}: no worker is ready: {_cause(error)}; start some with "
            f"`dask worker {address}`"
        ) from error
    for name, answer in answers.items():
        difference = _difference(answer, versions())
        if difference:
            raise ClusterError(_refusal(f"--cluster {address}: {name}", difference))
    return threads


def _on_scheduler(client: "Client") -> Any:
    try:
        return client.run_on_scheduler(versions)
    except Exception as error:
        return error


@functools.cache
def versions() -> dict[str, str]:
    """Of all here that the numbers of a fit or an evaluation depend on."""
    return {
        "onnxcp": __version__,
        "fitting code": store.version()[:12],
        "numpy": metadata.version("numpy"),
        "scipy": metadata.version("scipy"),
        "onnxruntime": str(runtime().__version__),
    }


def _difference(answer: Mapping[str, str] | Exception, wanted: Mapping[str, str]) -> str:
    if isinstance(answer, Exception):
        return _cause(answer)
    differing = (f"{k} {answer.get(k)}, here {v}" for k, v in wanted.items() if answer.get(k) != v)
    return next(differing, "")


def _refusal(where: str, difference: str) -> str:
    return f"{where}: {difference}; install the same packages on all machines"


def _cause(error: BaseException | None) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _answered(wanted: Mapping[str, str], function: Callable[..., Any], *arguments: Any) -> object:
    """On a worker: what the function gives, or the exception that it raised."""
    from distributed import get_worker

    difference = _difference(versions(), wanted)  # it may have joined after the check
    if difference:
        return ClusterError(_refusal(f"worker {get_worker().address}", difference))
    _one_thread_a_call()
    try:
        return function(*arguments)
    except MemoryError:
        raise  # of this worker: another may have more
    except Exception as error:
        return error


@functools.cache
def _one_thread_a_call() -> None:
    """For as long as the worker lives: limits that calls set and lift would overlap, and a
    product on several threads may differ in its last bit."""
    threadpool_limits(1)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Dask and its event loop print and warn of nothing inside."""
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
