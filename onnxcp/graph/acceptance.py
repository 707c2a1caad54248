"""Whether a model is accepted: the ONNX checker decides, or ONNX Runtime if it refuses more than
what runs."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import onnx

from onnxcp.errors import MissingPackage, ModelError
from onnxcp.graph.external_data import tensors, without_data
from onnxcp.graph.repairs import repaired
from onnxcp.runtime.ort import SILENT, runtime

REFUSALS = (onnx.checker.ValidationError, ValueError, RuntimeError)


def accepted(path: Path, proto: onnx.ModelProto) -> tuple[str, ...]:
    """Check a model read from `path`, without its external data.

    What the checker refuses is repaired in place if possible; returns the repairs in words.

    Raises:
        ModelError: the checker still refuses it, and ONNX Runtime does not load it either.
    """
    is_outside = any(t.data_location == onnx.TensorProto.EXTERNAL for t in tensors(proto))
    cause = _refusal(without_data(proto) if is_outside else str(path))
    if cause is None:
        return ()
    notes = repaired(proto)
    left = _refusal(without_data(proto)) if notes else cause
    if left is None:
        return notes
    trouble = _trouble(path)
    if trouble is not None:
        said = f"; ONNX Runtime reports: {trouble}" if trouble else ""
        raise ModelError(
            f"{path}: the ONNX checker refuses it: {cause}{said}; export the model again"
        )
    return (*notes, f"it is taken because ONNX Runtime loads it; the ONNX checker says: {left}")


def _refusal(model: str | onnx.ModelProto) -> str | None:
    """The checker's message for a model that it refuses; None if it accepts the model."""
    try:
        with _nothing_on_stdout():
            onnx.checker.check_model(model)
    except REFUSALS as error:
        return first_line(error)
    return None


def _trouble(path: Path) -> str | None:
    """Why ONNX Runtime does not load a model; "" where there is none to ask, None if it does."""
    try:
        ort = runtime()
    except MissingPackage:
        return ""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = SILENT, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of a type of its own for every cause
        return first_line(error)
    return None


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(" .") if lines else type(error).__name__


@contextlib.contextmanager
def _nothing_on_stdout() -> Iterator[None]:
    """Send to stderr what the checker prints of experimental operators: stdout is for results."""
    try:
        kept = os.dup(1)
    except OSError:  # closed, so nothing can be printed there
        yield
        return
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
