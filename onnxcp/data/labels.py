"""Labels as stored in files, turned into class numbers where they are classes."""

import numpy as np

from onnxcp.errors import DataError

NAMES = ("label", "labels")  # of the array in an .npz
MAX_EXACT_INTEGER = 2**53  # of a float64: larger whole numbers are rounded


def class_numbers(labels: np.ndarray, where: str) -> tuple[np.ndarray, str | None]:
    """Labels [samples, ...] and a note about what was changed, None if nothing was.

    One-hot rows and whole numbers in floats become class numbers; [samples, 1] becomes [samples];
    other labels stay as they are.

    Raises:
        DataError: the labels are not numbers, or there is no axis of samples.
    """
    if labels.ndim == 0 or labels.dtype.kind not in "fiub":
        raise DataError(f"{where} of {labels.dtype} does not hold a number for every sample")
    if is_one_hot(labels):
        return labels.argmax(axis=1), f"{where}: one-hot rows are read as class numbers"
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim > 1 or labels.dtype.kind in "iu":
        return labels, None
    if labels.dtype.kind == "b":
        return labels.astype(np.int64), None
    if len(labels) and _are_whole(labels):
        return labels.astype(np.int64), f"{where}: {labels.dtype} values are read as class numbers"
    return labels, None


def is_one_hot(labels: np.ndarray) -> bool:
    """Whether every row of [samples, classes] is a single 1 among zeros; needs two classes."""
    if labels.ndim != 2 or labels.shape[1] < 2 or not len(labels):
        return False
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all())


def _are_whole(labels: np.ndarray) -> bool:
    with np.errstate(invalid="ignore"):
        inside = np.isfinite(labels) & (abs(labels) < MAX_EXACT_INTEGER)
        return bool(inside.all() and (labels == np.floor(labels)).all())
