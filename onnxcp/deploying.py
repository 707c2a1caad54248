"""A float model as it is deployed: quantized, where that is what the run is for."""

import functools
import hashlib
from pathlib import Path

import onnx

from onnxcp import files
from onnxcp.inputs import Inputs
from onnxcp.progress import Progress, silent
from onnxcp.quantize import quantize
from onnxcp.scheme import fastest

CODE = ("quantize", "ranges", "scheme")
RANGED = 128  # calibration samples, at most, that ranges of activations are taken from


def in_int8(
    path: Path, inputs: Inputs, where: str, *, raise_opset: bool, progress: Progress = silent
) -> onnx.ModelProto:
    """The int8 model of a float one; `where` names it in messages.

    Raises:
        DataError: no calibration samples, too few, or activations that are not finite.
        ModelError: a model that can not become int8.
    """
    samples = inputs.calibration
    return quantize(
        files.load(path).proto,
        None if samples is None else samples.spaced(RANGED),
        inputs.calibrating,
        fastest(),
        where=where,
        raise_opset=raise_opset,
        progress=progress,
    )


@functools.cache
def version() -> str:
    """Of the code that quantizes, and of what it asks for here: other code, other models."""
    digest = hashlib.sha256(f"{fastest()}|{RANGED}".encode())
    for name in CODE:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()
