"""Calls on the workers of a Dask cluster, and what happens when workers or the scheduler fail.

A call takes a function and its arguments. An argument that is a `SharedValue` is sent to a worker
once and stays there for as long as it is alive here. If a worker dies, another one repeats the
call, and shared values are sent again. If the cluster dies, the call ends with a `ClusterError`;
it never hangs.

An exception of the function comes back as a value, so that any exception of Dask is about the
cluster. Every thread of a worker runs one call at a time. The scheduler unpickles what it passes
on, so it needs the same packages as the workers.

Results equal those of a run without a cluster if the workers have the same packages and kind of
processor; only the packages are checked.
"""

import contextlib
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import Any
from weakref import WeakKeyDictionary

from onnxcp.cluster.dask_client import (
    CONNECT_SECONDS,
    Connection,
    cause,
    connected,
    is_deadly,
    refuse_other,
    versions,
    worker,
)
from onnxcp.errors import ClusterError

LOST_SECONDS = 60.0  # without any worker, after which a cluster counts as lost
PAUSE_SECONDS = 1.0  # between two checks of the cluster
ATTEMPTS = 3  # at a call whose shared values are lost with the worker that holds them

NOTHING_LOST = "finished work is not lost: fits are kept in the cache; run again"


class SharedValue(ABC):
    """A large value that many calls need; a worker keeps it until it is garbage-collected here."""

    __slots__ = ("__weakref__",)

    @abstractmethod
    def packed(self) -> object:
        """What is sent; called again if the worker that held it was lost."""


class Cluster:
    """The workers of a scheduler.

    `executor` has a thread on this machine for each of the workers' `threads`, to `call` from.
    """

    def __init__(self, connection: Connection, threads: int, executor: Executor) -> None:
        self.threads, self.executor = threads, executor
        self._connection, self._versions = connection, versions()
        self._sent: WeakKeyDictionary[SharedValue, Any] = WeakKeyDictionary()
        self._sending, self._checking = threading.Lock(), threading.Lock()
        self._last_check = self._last_alive = time.monotonic()
        self._failure = ""  # why the cluster counts as lost

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of a function of this package that some worker runs.

        The function receives a `SharedValue` as what its `packed` returns.

        Raises:
            ClusterError: the cluster is lost, or several workers died while they ran this call.
            Exception: whatever the function raises.
        """
        for _ in range(ATTEMPTS):
            try:
                answer = self._answer(function, arguments)
            except _Failure as failure:  # mostly a lost worker that held shared values
                dask_error = failure.__cause__
                if is_deadly(dask_error):
                    break
                self._wait_for_workers()
            else:
                if isinstance(answer, Exception):
                    raise answer
                return answer
        raise self._error(
            f"{function.__name__} failed on several workers ({cause(dask_error)}); they probably "
            "lack memory: give them more, or fewer threads each"
        ) from dask_error

    def _answer(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        sent = [self._handle(a) if isinstance(a, SharedValue) else a for a in arguments]
        key = f"{function.__name__}-{uuid.uuid4().hex}"
        return self._awaited(
            self._connection.call, key, run_on_worker, (self._versions, function, *sent)
        )

    def _handle(self, value: SharedValue) -> Any:
        """The handle of a value, which is sent first if needed; one at a time, on one network."""
        with self._sending:
            handle = self._sent.get(value)
            if handle is None or handle.status != "finished":
                key = f"{type(value).__name__}-{uuid.uuid4().hex}"
                handle = self._awaited(self._connection.send, key, value.packed())[key]
                self._sent[value] = handle
            return handle

    def _awaited(self, begin: Callable[..., Future[Any]], *arguments: Any) -> Any:
        """The result; raises _Failure from whatever Dask raises, or ClusterError."""
        begun = time.monotonic()
        self._refuse_dead(begun)
        future = begin(*arguments)
        try:
            while not wait([future], PAUSE_SECONDS).done:
                self._refuse_dead(begun)
        finally:
            future.cancel()
        try:
            return future.result()
        except Exception as error:
            raise _Failure from error

    def _wait_for_workers(self) -> None:
        begun = time.monotonic()
        while self._connection.status == "connecting" or not self._has_workers():
            self._refuse_dead(begun)
            time.sleep(PAUSE_SECONDS)

    def _refuse_dead(self, since: float) -> None:
        """Raises ClusterError if the scheduler is gone, or there was no worker for too long."""
        with self._checking:  # one check for all threads that wait
            if time.monotonic() - self._last_check >= PAUSE_SECONDS:
                if self._has_workers():
                    self._last_alive = time.monotonic()
                self._last_check = time.monotonic()
            if self._connection.status in ("closing", "closed"):
                self._failure = (
                    f"the scheduler is gone and did not come back in {CONNECT_SECONDS:.0f} s"
                )
            elif time.monotonic() - max(since, self._last_alive) > LOST_SECONDS:
                self._failure = f"no worker answered for {LOST_SECONDS:.0f} s"
            if self._failure:
                raise self._error(self._failure)

    def _has_workers(self) -> bool:
        with contextlib.suppress(Exception):
            return self._connection.threads(PAUSE_SECONDS) > 0
        return False

    def _error(self, what: str) -> ClusterError:
        return ClusterError(f"<<cluster={self._connection.address}>>: {what}; {NOTHING_LOST}")


class _Failure(Exception):
    """Dask failed, not the function that was called; `__cause__` is Dask's exception."""


@contextlib.contextmanager
def open_cluster(address: str) -> Iterator[Cluster]:
    """The workers of the scheduler at an address; released when the block ends, also by an error.

    Raises:
        MissingPackage: Dask is not installed.
        ClusterError: no scheduler answers, it has no workers, or they run other versions.
    """
    with connected(address) as (connection, threads):
        executor = ThreadPoolExecutor(threads, "onnxcp-cluster")
        try:
            yield Cluster(connection, threads, executor)
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
            connection.close()  # ends the calls that still wait
            executor.shutdown()


def run_on_worker(
    expected: Mapping[str, str], function: Callable[..., Any], *arguments: Any
) -> object:
    """The function's result or the exception that it raised; this runs on a worker."""
    try:
        refuse_other(versions(), expected, worker())  # the worker may have joined after the check
        return function(*arguments)
    except MemoryError:
        raise  # another worker may have more memory
    except Exception as error:
        return error
