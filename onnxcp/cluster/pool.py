"""Workers of a cluster: calls done far away, and what happens where some of it dies.

A call takes a function and what it needs; a `Parcel` among that is sent to a worker once and
stays there for as long as it is kept here. A call whose worker dies is done again by another,
with its parcels sent anew; one whose cluster dies ends with a `ClusterError`, and never hangs.

What the function raises comes back as a value, so that whatever Dask raises is of the cluster.
Every thread of a worker does one call at a time. The scheduler only hands on, but unpickles what
it hands on, so that it needs the same packages.

Numbers are those of a run without a cluster where the workers' packages and kind of processor
are the same; the packages are checked.
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
    CONNECT,
    Line,
    cause,
    connected,
    is_deadly,
    refuse_other,
    versions,
    worker,
)
from onnxcp.errors import ClusterError

LOST = 60.0  # seconds without any worker after which a cluster counts as dead
PAUSE = 1.0  # seconds between two looks at whether it is
ATTEMPTS = 3  # at a call whose parcels die with the worker that holds them

NOTHING_LOST = "nothing finished is lost: fits are kept in the cache; run again"


class Parcel(ABC):
    """Something large that many calls need. A worker keeps it until it is collected here."""

    __slots__ = ("__weakref__",)

    @abstractmethod
    def packed(self) -> object:
        """What travels; asked for again where the worker that held it was lost."""


class Cluster:
    """A scheduler's workers. `executor` has a thread here for each of their `threads`, to
    `call` from."""

    def __init__(self, line: Line, threads: int, executor: Executor) -> None:
        self.threads, self.executor = threads, executor
        self._line, self._versions = line, versions()
        self._sent: WeakKeyDictionary[Parcel, Any] = WeakKeyDictionary()
        self._sending, self._looking = threading.Lock(), threading.Lock()
        self._looked = self._alive = time.monotonic()
        self._dead = ""

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function of this package gives on some worker, `Parcel`s handed to it unpacked.

        Raises:
            ClusterError: the cluster is lost, or its workers die of this call.
            Exception: whatever the function raises.
        """
        for _ in range(ATTEMPTS):
            try:
                answer = self._answer(function, arguments)
            except _Failure as failure:  # mostly a worker was lost, and parcels with it
                last = failure.__cause__
                if is_deadly(last):
                    break
                self._wait_for_workers()
            else:
                if isinstance(answer, Exception):
                    raise answer
                return answer
        raise self._error(
            f"{function.__name__} failed on one worker after the other ({cause(last)}); those that "
            "die lack memory: give them more, or fewer threads each"
        ) from last

    def _answer(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        sent = [self._parcel(a) if isinstance(a, Parcel) else a for a in arguments]
        key = f"{function.__name__}-{uuid.uuid4().hex}"
        return self._awaited(self._line.call, key, answered, (self._versions, function, *sent))

    def _parcel(self, parcel: Parcel) -> Any:
        """Sent one at a time: they share the wire anyway."""
        with self._sending:
            known = self._sent.get(parcel)
            if known is None or known.status != "finished":
                key = f"{type(parcel).__name__}-{uuid.uuid4().hex}"
                known = self._awaited(self._line.send, key, parcel.packed())[key]
                self._sent[parcel] = known
            return known

    def _awaited(self, begin: Callable[..., Future[Any]], *arguments: Any) -> Any:
        """Raises _Failure from whatever Dask raises, or ClusterError."""
        since = time.monotonic()
        self._refuse_dead(since)
        begun = begin(*arguments)
        try:
            while not wait([begun], PAUSE).done:
                self._refuse_dead(since)
        finally:
            begun.cancel()
        try:
            return begun.result()
        except Exception as error:
            raise _Failure from error

    def _wait_for_workers(self) -> None:
        begun = time.monotonic()
        while self._line.status == "connecting" or not self._has_workers():
            self._refuse_dead(begun)
            time.sleep(PAUSE)

    def _refuse_dead(self, since: float) -> None:
        """Raises ClusterError if the scheduler is gone, or there was no worker for too long."""
        with self._looking:  # one look for all who wait
            if time.monotonic() - self._looked >= PAUSE:
                if self._has_workers():
                    self._alive = time.monotonic()
                self._looked = time.monotonic()
            if self._line.status in ("closing", "closed"):
                self._dead = f"the scheduler is gone and did not come back in {CONNECT:.0f} s"
            elif time.monotonic() - max(since, self._alive) > LOST:
                self._dead = f"no worker was heard of for {LOST:.0f} s"
            if self._dead:
                raise self._error(self._dead)

    def _has_workers(self) -> bool:
        with contextlib.suppress(Exception):
            return self._line.threads(PAUSE) > 0
        return False

    def _error(self, what: str) -> ClusterError:
        return ClusterError(f"<<cluster={self._line.address}>>: {what}; {NOTHING_LOST}")


class _Failure(Exception):
    """Of Dask, which is its cause, and not of what was called."""


@contextlib.contextmanager
def open_cluster(address: str) -> Iterator[Cluster]:
    """The workers of the scheduler at an address; let go when the block ends, however it ends.

    Raises:
        MissingPackage: Dask is not installed.
        ClusterError: no scheduler answers, it has no workers, or they run other versions.
    """
    with connected(address) as (line, threads):
        executor = ThreadPoolExecutor(threads, "onnxcp-cluster")
        try:
            yield Cluster(line, threads, executor)
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
            line.close()  # which ends the calls that still wait
            executor.shutdown()


def answered(wanted: Mapping[str, str], function: Callable[..., Any], *arguments: Any) -> object:
    """On a worker: what the function gives, or the exception that it raised."""
    try:
        refuse_other(versions(), wanted, worker())  # it may have joined after the check
        return function(*arguments)
    except MemoryError:
        raise  # of this worker: another may have more
    except Exception as error:
        return error
