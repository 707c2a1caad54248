"""One thread for linear algebra: tests run side by side, and their matrices are small.
Shapes and dtypes in annotations are checked while tests run, and only then."""

import os
import tempfile

import pytest
from jaxtyping import install_import_hook
from threadpoolctl import threadpool_limits

threadpool_limits(1)
KEPT = tempfile.TemporaryDirectory()  # fits of this test process alone; gone at its end
os.environ["ONNXCP_CACHE"] = KEPT.name
CHECKED = ("forms", "conv", "accuracy", "search.evb", "search.frontier")
install_import_hook([f"onnxcp.{name}" for name in CHECKED], "beartype.beartype")


@pytest.fixture(scope="module")
def quiet():
    """Times that follow from the model, for tests whose result would hang on a neighbour."""
    from quiet import install  # not above: what it imports is to be checked

    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        yield
