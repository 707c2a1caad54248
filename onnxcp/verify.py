"""Are two models' outputs equal, and if not where and by how much.

Two questions are kept apart everywhere: whether the surgery was right (the rewritten model
against the original with reconstructed kernels: equal to rounding) and how good the
approximation is (judged by a budget on data).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxcp.arrays import Float64
from onnxcp.tensors import Feeds

Outputs = Callable[[Feeds], Sequence[np.ndarray]]

REDUCTIONS: dict[str, Callable[[np.ndarray], Any]] = {
    "max": np.max,
    "mean": np.mean,
    "median": np.median,
}
STATS = ("elemwise", *REDUCTIONS)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Polygraphy's: |candidate − reference| ≤ atol + rtol · |reference|, elementwise; or the
    max, mean or median of the absolute error ≤ atol or of the relative one ≤ rtol."""

    rtol: float = 1e-5
    atol: float = 1e-5
    stat: str = "elemwise"


@dataclass(frozen=True, slots=True)
class Difference:
    """One output over all samples. `worst` is the index of the largest absolute error."""

    output: str
    shape: tuple[int, ...]
    relative_l2: float
    cosine: float
    max_abs: float
    mean_abs: float
    median_abs: float
    worst: tuple[int, ...]
    agreement: float | None  # of the strongest channel, where there is one
    failure: str | None  # why this output fails, or None

    @property
    def ok(self) -> bool:
        return self.failure is None


@dataclass(frozen=True, slots=True)
class Verdict:
    """All outputs of two models."""

    outputs: tuple[Difference, ...]
    samples: int

    @property
    def ok(self) -> bool:
        return all(o.ok for o in self.outputs)

    @property
    def relative_l2(self) -> float:
        """Of the output that differs most."""
        return max((o.relative_l2 for o in self.outputs), default=0.0)


def compare(
    reference: Outputs,
    candidate: Outputs,
    names: Sequence[str],
    feeds: Iterable[Feeds],
    *,
    tolerance: Tolerance | Mapping[str, Tolerance] | None = None,
    most_l2: float | None = None,
) -> Verdict:
    """Run both models on the same feeds and compare every output.

    NaN, infinity and unequal shapes always fail. `tolerance` is judged elementwise or by a
    statistic, for all outputs or by output name; `most_l2` bounds the relative L2 error.
    """
    runs = [(reference(f), candidate(f)) for f in feeds]
    found = []
    for position, name in enumerate(names):
        pairs = [(np.asarray(a[position]), np.asarray(b[position])) for a, b in runs]
        rule = tolerance.get(name) if isinstance(tolerance, Mapping) else tolerance
        found.append(_difference(name, pairs, rule, most_l2))
    return Verdict(tuple(found), len(runs))


def _difference(
    name: str,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    rule: Tolerance | None,
    most_l2: float | None,
) -> Difference:
    unequal = next(((a.shape, b.shape) for a, b in pairs if a.shape != b.shape), None)
    if unequal is not None:
        words = f"shapes differ: {unequal[0]} and {unequal[1]}"
        nan = float("nan")
        return Difference(name, unequal[0], nan, nan, nan, nan, nan, (), None, words)
    a = np.concatenate([np.asarray(p[0], np.float64).ravel() for p in pairs])
    b = np.concatenate([np.asarray(p[1], np.float64).ravel() for p in pairs])
    with np.errstate(invalid="ignore", over="ignore"):
        made = _measured(name, pairs, a, b)
        return replace(made, failure=_failure(made, a, b, rule, most_l2))


def _measured(
    name: str,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    a: Float64[np.ndarray, " n"],
    b: Float64[np.ndarray, " n"],
) -> Difference:
    error = np.abs(a - b)
    shape = pairs[0][0].shape
    worst = (
        np.unravel_index(int(error.argmax()) % max(1, int(np.prod(shape))), shape or (1,))
        if error.size
        else ()
    )
    return Difference(
        output=name,
        shape=shape,
        relative_l2=_ratio(float(np.linalg.norm(a - b)), float(np.linalg.norm(a))),
        cosine=_ratio(float(a @ b), float(np.linalg.norm(a) * np.linalg.norm(b)), empty=1.0),
        max_abs=float(error.max(initial=0.0)),
        mean_abs=float(error.mean()) if error.size else 0.0,
        median_abs=float(np.median(error)) if error.size else 0.0,
        worst=tuple(int(i) for i in worst),
        agreement=_agreement(pairs),
        failure=None,
    )


def _ratio(value: float, by: float, empty: float = 0.0) -> float:
    if by > 0:
        return value / by
    return empty if value == 0 else float("inf")


def _agreement(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float | None:
    if any(a.ndim < 2 or a.shape[1] < 2 for a, _ in pairs):
        return None
    return float(np.mean([np.mean(a.argmax(1) == b.argmax(1)) for a, b in pairs]))


def _failure(
    found: Difference,
    reference: Float64[np.ndarray, " n"],
    candidate: Float64[np.ndarray, " n"],
    rule: Tolerance | None,
    most_l2: float | None,
) -> str | None:
    for who, values in (("reference", reference), ("candidate", candidate)):
        wrong = int(values.size - np.isfinite(values).sum())
        if wrong:
            return f"{wrong} of {values.size} values of the {who} are NaN or infinite"
    if most_l2 is not None and found.relative_l2 > most_l2:
        return f"relative L2 error {found.relative_l2:.2g} exceeds {most_l2:.2g}"
    return None if rule is None else _outside(found, reference, candidate, rule)


def _outside(
    found: Difference,
    reference: Float64[np.ndarray, " n"],
    candidate: Float64[np.ndarray, " n"],
    rule: Tolerance,
) -> str | None:
    error = np.abs(reference - candidate)
    if rule.stat == "elemwise":
        beyond = int((error > rule.atol + rule.rtol * np.abs(reference)).sum())
        if not beyond:
            return None
        return f"{beyond} of {error.size} values leave the tolerance, most at {list(found.worst)}"
    reduce = REDUCTIONS[rule.stat]
    scale = np.abs(reference)
    relative = np.divide(error, scale, out=np.where(error > 0, np.inf, 0.0), where=scale > 0)
    absolute, ratio = float(reduce(error)), float(reduce(relative))
    if absolute <= rule.atol or ratio <= rule.rtol:
        return None
    return f"{rule.stat} error {absolute:.3g} (relative {ratio:.3g}) exceeds the tolerance"
