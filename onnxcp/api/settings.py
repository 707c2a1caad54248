"""Keywords of a verb that do not stand for what they do on the command line alone: samples, which
may be in memory, and the cache, which is off unless it is named."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxcp.api.keywords import grouped
from onnxcp.api.staging import Staging
from onnxcp.errors import UsageError
from onnxcp.options.data import DataOptions
from onnxcp.options.fit import FitOptions

SAMPLES = ("data", "calibration", "train")  # keywords


def data_of(given: Mapping[str, Any], staged: Staging, model: Path) -> DataOptions:
    """What to feed a model, from the keywords of a verb.

    Raises:
        DataError: samples in memory that do not fit the model.
        UsageError: samples that are none, or the same object for two purposes.
    """
    _refuse_same(given)
    specs = {
        name: staged.samples(given[name], name, model, given.get("samples"))
        for name in SAMPLES
        if given.get(name) is not None
    }
    return grouped(DataOptions, {**given, **specs})


def _refuse_same(given: Mapping[str, Any]) -> None:
    """Raises UsageError where samples that judge are those that calibrate or train."""
    data = given.get("data")
    for name in SAMPLES[1:]:
        if data is not None and given.get(name) is data:
            raise UsageError(
                f"<<{name}>>: is the object that <<data>> is, and its samples must not judge; "
                "give others, or leave it out"
            )


def fits_of(given: Mapping[str, Any]) -> FitOptions:
    """How kernels are fitted, from the keywords of a verb. A call keeps no fits unless it is told
    to: it writes no file that its caller has not named.

    Raises:
        UsageError: a value that the group refuses.
    """
    is_told = given.get("cache") is not None or given.get("no_cache") is not None
    return grouped(FitOptions, given if is_told else {**given, "no_cache": True})
