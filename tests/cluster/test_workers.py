"""Processes that fit: what comes back of them, and that a killed one ends the wait for it."""

import os
import signal
from concurrent.futures import BrokenExecutor
from multiprocessing import connection

import numpy as np
import pytest

from onnxcp.cluster.processes import processes

SECONDS = 20.0  # after which a wait is one for ever


@pytest.fixture(scope="module")
def executor():
    with processes(2) as made:
        yield made


def killed_within(message):
    """From now on this process is killed halfway through every message of that size or more."""
    send = connection.Connection._send

    def half(self, buffer, write=os.write):
        if len(buffer) < message:
            send(self, buffer)
            return
        send(self, buffer[: len(buffer) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    connection.Connection._send = half


def large(message):
    killed_within(message)
    return np.arange(1_000_000)


def refuses(why):
    raise ValueError(why)


def dies():
    os.kill(os.getpid(), signal.SIGKILL)


def test_results_come_back_whole(executor):
    assert executor.submit(divmod, 7, 2).result(SECONDS) == (3, 1)
    made = executor.submit(np.arange, 1_000_000).result(SECONDS)
    assert np.array_equal(made, np.arange(1_000_000))


def test_an_error_comes_back_as_itself(executor):
    with pytest.raises(ValueError, match="as you wish"):
        executor.submit(refuses, "as you wish").result(SECONDS)


def test_nothing_that_a_kill_could_cut_in_two_goes_through_the_pipe():
    with processes(2) as executor:
        made = executor.submit(large, 4096).result(SECONDS)
    assert made[-1] == 999_999


def test_a_process_that_dies_ends_the_wait_for_it():
    with processes(2) as executor, pytest.raises(BrokenExecutor):
        executor.submit(dies).result(SECONDS)
