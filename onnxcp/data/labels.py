"""Labels as people store them, as class numbers where that is what they are."""

import numpy as np

from onnxcp.errors import DataError

NAMES = ("label", "labels")  # of the array in an .npz
MOST_CLASSES = 2**53  # whole numbers that a float64 can tell apart


def class_numbers(labels: np.ndarray, where: str) -> tuple[np.ndarray, str | None]:
    """Labels [samples, ...] with what was changed, in words: one-hot rows and whole numbers in
    floats become class numbers; a column becomes a row; others stay.

    Raises:
        DataError: not one number or more for every sample.
    """
    if labels.ndim == 0 or labels.dtype.kind not in "fiub":
        raise DataError(f"{where} of {labels.dtype} holds no number for every sample")
    if is_one_hot(labels):
        return labels.argmax(axis=1), f"{where}: one-hot rows were read as class numbers"
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim > 1 or labels.dtype.kind in "iu":
        return labels, None
    if labels.dtype.kind == "b":
        return labels.astype(np.int64), None
    if len(labels) and _are_whole(labels):
        return labels.astype(np.int64), f"{where}: whole numbers in {labels.dtype} are classes"
    return labels, None


def is_one_hot(labels: np.ndarray) -> bool:
    """Whether every row [samples, classes] holds a single one, and zeros."""
    if labels.ndim != 2 or labels.shape[1] < 2 or not len(labels):
        return False
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all())


def _are_whole(labels: np.ndarray) -> bool:
    with np.errstate(invalid="ignore"):
        inside = np.isfinite(labels) & (abs(labels) < MOST_CLASSES)
        return bool(inside.all() and (labels == np.floor(labels)).all())
