"""One thread for linear algebra: tests run side by side, and their matrices are small."""

import os
import tempfile

import pytest
import scipy.linalg  # noqa: F401  its OpenBLAS is another than numpy's, and is limited only if loaded
import shape_checks
from threadpoolctl import threadpool_limits

threadpool_limits(1)
KEPT = tempfile.TemporaryDirectory()  # fits of this test process alone; gone at its end
os.environ["ONNXCP_CACHE"] = KEPT.name
CHECKED = ("forms", "chain", "measure.accuracy", "search.evb", "search.frontier")
shape_checks.install([f"onnxcp.{name}" for name in CHECKED])


@pytest.fixture(autouse=True)
def shapes_are_checked_anew():
    shape_checks.calls.clear()


@pytest.fixture(scope="module")
def quiet():
    """Times that follow from the model, for tests whose result would hang on a neighbour."""
    from quiet import install  # not above: what it imports is to be checked

    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        yield
