"""Statistics of one output of two models, summed over samples; values are kept only for medians.

An element that is NaN or infinite on one side counts as wrong, and enters no other statistic.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxcp.arrays import Float64

MOST_HELD = 2**25  # errors of one output, of 4 bytes, that its median is taken of: the first
STRINGS = "OSU"  # kinds of dtype that are no numbers: these are equal or not


@dataclass(frozen=True, slots=True)
class Place:
    """One element: its sample, and its index in the output for this sample.

    `sample` is the first of the batch if the output has no batch dimension.
    """

    sample: int
    index: tuple[int, ...]
    reference: float
    candidate: float

    def __str__(self) -> str:
        return f"{self._where()}: {self.reference:.6g} in the reference, {self.candidate:.6g} now"

    def change(self) -> str:
        """The same in words for two models of which neither is the reference."""
        return f"{self._where()}: {self.reference:.6g} → {self.candidate:.6g}"

    def _where(self) -> str:
        return f"sample {self.sample}, {list(self.index)}"


@dataclass(frozen=True, slots=True)
class Batch:
    """The samples that an output belongs to, by number and in order."""

    numbers: Sequence[int]

    def is_first(self, shape: tuple[int, ...]) -> bool:
        """Whether samples are the first dimension of an output."""
        return bool(shape) and shape[0] == len(self.numbers)

    def place(self, shape: tuple[int, ...], flat: int) -> tuple[int, tuple[int, ...]]:
        """The sample of an element and its index there, from its index in the flat array."""
        index = tuple(int(i) for i in np.unravel_index(flat, shape or (1,)))
        if not shape:
            return self.numbers[0], ()
        if not self.is_first(shape):
            return self.numbers[0], index
        return self.numbers[index[0]], index[1:]


@dataclass(slots=True)
class Tally:
    """Sums over all elements so far: squares, absolute errors and relative errors."""

    rtol: float = 0.0
    atol: float = 0.0
    top_k: int = 5
    elements: int = 0
    values: int = 0  # of these, finite on both sides
    reference: float = 0.0
    candidate: float = 0.0
    dot: float = 0.0
    error: float = 0.0
    absolute: float = 0.0
    relative: float = 0.0
    most_relative: float = 0.0
    beyond: int = 0  # of |error| ≤ atol + rtol · |reference|
    worst: Place | None = None
    wrong: dict[str, int] = field(default_factory=lambda: {"reference": 0, "candidate": 0})
    first_wrong: Place | None = None
    agreed: dict[int, list[int]] = field(default_factory=dict)  # k: [agreeing, all]
    held: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def add(self, a: np.ndarray, b: np.ndarray, batch: Batch) -> None:
        """Add the outputs of reference and candidate, of one shape, for some samples."""
        for k in (1, self.top_k):
            self._agree(a, b, k)
        x, y = _numbers(a, b)
        self.elements += x.size
        fine = np.isfinite(x) & np.isfinite(y)
        if not fine.all():
            self._spoilt(x, y, a.shape, batch)
            x, y = np.where(fine, x, 0.0), np.where(fine, y, 0.0)
        self.values += int(fine.sum())
        self.reference += float(x @ x)
        self.candidate += float(y @ y)
        self.dot += float(x @ y)
        self._errors(x, y, fine, a.shape, batch)

    def _spoilt(
        self,
        x: Float64[np.ndarray, " n"],
        y: Float64[np.ndarray, " n"],
        shape: tuple[int, ...],
        batch: Batch,
    ) -> None:
        for side, values in (("reference", x), ("candidate", y)):
            self.wrong[side] += int(values.size - np.isfinite(values).sum())
        if self.first_wrong is None:
            at = int(np.argmin(np.isfinite(x) & np.isfinite(y)))
            self.first_wrong = Place(*batch.place(shape, at), float(x[at]), float(y[at]))

    def _errors(
        self,
        x: Float64[np.ndarray, " n"],
        y: Float64[np.ndarray, " n"],
        fine: np.ndarray,
        shape: tuple[int, ...],
        batch: Batch,
    ) -> None:
        if not x.size:
            return
        error, size = np.abs(x - y), np.abs(x)
        relative = np.divide(error, size, out=np.where(error > 0, np.inf, 0.0), where=size > 0)
        self.error += float(error @ error)
        self.absolute += float(error.sum())
        self.relative += float(relative.sum())
        self.most_relative = max(self.most_relative, float(relative.max()))
        self.beyond += int((error > self.atol + self.rtol * size).sum())
        at = int(error.argmax())
        if self.worst is None or error[at] > abs(self.worst.reference - self.worst.candidate):
            self.worst = Place(*batch.place(shape, at), float(x[at]), float(y[at]))
        room = MOST_HELD - sum(part.size for part, _ in self.held)
        if room > 0:
            kept = error[fine][:room].astype(np.float32), relative[fine][:room].astype(np.float32)
            self.held.append(kept)

    def _agree(self, a: np.ndarray, b: np.ndarray, k: int) -> None:
        """Whether both have the same k largest channels, for every position of every sample."""
        if a.ndim < 2 or a.shape[1] <= k or a.dtype.kind in STRINGS:
            return
        same = np.all(_strongest(a, k) == _strongest(b, k), axis=1)
        seen = self.agreed.setdefault(k, [0, 0])
        seen[0] += int(same.sum())
        seen[1] += same.size

    def agreement(self, k: int) -> float | None:
        """The share of agreeing positions; None if there are no more than k channels."""
        agreeing, everything = self.agreed.get(k, (0, 0))
        return agreeing / everything if everything else None

    def medians(self) -> tuple[float, float]:
        """The medians of the absolute and of the relative error."""
        absolute, relative = (np.concatenate(parts) for parts in zip(*self.held, strict=True))
        if not absolute.size:
            return 0.0, 0.0
        return float(np.median(absolute)), float(np.median(relative))


def _numbers(
    a: np.ndarray, b: np.ndarray
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Both sides flat, as numbers; other types become 0 if equal, else 0 and 1."""
    if a.dtype.kind in STRINGS:
        return np.zeros(a.size), (a != b).astype(np.float64).ravel()
    return a.astype(np.float64).ravel(), b.astype(np.float64).ravel()


def _strongest(values: np.ndarray, k: int) -> np.ndarray:
    """The indices of the k largest channels, ascending; of equal channels the first."""
    if k == 1:  # in a fraction of the time
        return np.expand_dims(values.argmax(axis=1), 1)
    order = np.argsort(-values.astype(np.float64), axis=1, kind="stable")
    found: np.ndarray = np.sort(np.take(order, range(k), axis=1), axis=1)
    return found
