"""Inputs as ONNX's own tests store them: `test_data_set_0/input_0.pb`, `input_1.pb`, …

The outputs stored beside them are outputs of the model, not labels; they are not read.
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
    """The data sets in a folder, by number; the folder itself if it is a data set."""
    if (folder / FIRST).exists():
        return [folder]
    numbered = [(int(m[1]), d) for d in folder.iterdir() if (m := SET.fullmatch(d.name))]
    return [d for _, d in sorted(numbered) if (d / FIRST).exists()]


def read_sets(sets: Sequence[Path], specs: Sequence[TensorSpec]) -> list[Mapping[str, np.ndarray]]:
    """The feeds of every data set: by tensor name if all names are inputs, else in order.

    Raises:
        DataError: a file is missing, or is not a readable tensor.
    """
    return [_feeds(folder, specs) for folder in sets]


def _feeds(folder: Path, specs: Sequence[TensorSpec]) -> Mapping[str, np.ndarray]:
    tensors = [_tensor(folder / f"input_{index}.pb") for index in range(len(specs))]
    names, by_name = [s.name for s in specs], dict(tensors)
    if set(by_name) == set(names):
        return by_name
    return dict(zip(names, (array for _, array in tensors), strict=True))


def _tensor(file: Path) -> tuple[str, np.ndarray]:
    import onnx

    if not file.is_file():
        raise DataError(f"{file}: no such file; a data set needs a file for every model input")
    try:
        tensor = onnx.TensorProto.FromString(file.read_bytes())
        return tensor.name, onnx.numpy_helper.to_array(tensor)
    except Exception as error:  # protobuf and numpy fail in many ways on damaged tensors
        raise DataError(f"{file}: not a readable tensor: {error}; store it again") from error
