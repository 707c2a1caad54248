"""Inputs as ONNX's own tests store them: `test_data_set_0/input_0.pb`, `input_1.pb`, …

The outputs stored beside them are what the model gives, and no labels.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from onnxcp.errors import DataError
from onnxcp.graph.input_specs import TensorSpec

SET = re.compile(r"test_data_set_(\d+)")
FIRST = "input_0.pb"


def data_sets(folder: Path) -> list[Path]:
    """The data sets of a folder, in order of their numbers; itself where it is one."""
    if (folder / FIRST).exists():
        return [folder]
    found = [(int(m[1]), d) for d in folder.iterdir() if (m := SET.fullmatch(d.name))]
    return [d for _, d in sorted(found) if (d / FIRST).exists()]


def read_sets(sets: Sequence[Path], specs: Sequence[TensorSpec]) -> list[Mapping[str, np.ndarray]]:
    """The feeds of every set: tensors by the inputs' names where all have them, else in order.

    Raises:
        DataError: a file that is missing, or holds no tensor.
    """
    return [_feeds(folder, specs) for folder in sets]


def _feeds(folder: Path, specs: Sequence[TensorSpec]) -> Mapping[str, np.ndarray]:
    tensors = [_tensor(folder / f"input_{place}.pb") for place in range(len(specs))]
    names, by_name = [s.name for s in specs], dict(tensors)
    if set(by_name) == set(names):
        return by_name
    return dict(zip(names, (array for _, array in tensors), strict=True))


def _tensor(file: Path) -> tuple[str, np.ndarray]:
    import onnx

    if not file.is_file():
        raise DataError(f"{file}: no such file; a data set has a file for every input of the model")
    try:
        tensor = onnx.TensorProto.FromString(file.read_bytes())
        return tensor.name, onnx.numpy_helper.to_array(tensor)
    except Exception as error:  # protobuf, and whatever a damaged tensor leads to
        raise DataError(f"{file}: holds no tensor that can be read: {error}") from error
