"""The error of an int8 model in two steps: by its weights, and by the rounding of activations.

Between the reference and the int8 model stands a model without rounding: with the weights that
the integers represent, chains included, and activations clipped to their ranges.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxcp.graph.input_specs import Feeds
from onnxcp.options.tolerance import TOP_K
from onnxcp.verification.difference import Difference, Outputs, Tolerance, Verdict, compare


@dataclass(frozen=True, slots=True)
class Steps:
    """The difference of every output in both steps: reference to middle, middle to int8 model."""

    weights: tuple[Difference, ...]
    rounding: tuple[Difference, ...]


def compare_in_steps(
    reference: Outputs,
    middle: Outputs,
    candidate: Outputs,
    names: Sequence[str],
    feeds: Iterable[Feeds],
    *,
    tolerance: Mapping[str, Tolerance],
    top_k: int = TOP_K,
    numbers: Sequence[int] | None = None,
) -> tuple[Verdict, Steps]:
    """Run the three models once on the same feeds.

    The verdict and all limits compare the candidate with the reference.
    """
    once = _Once(reference, middle, candidate)
    found = compare(
        once.before,
        once.after,
        [f"{name}{step}" for step in ("", "\0weights", "\0rounding") for name in names],
        feeds,
        tolerance=tolerance,
        top_k=top_k,
        numbers=numbers,
    )
    count = len(names)
    whole, weights, rounding = (
        tuple(
            replace(o, output=name)
            for o, name in zip(found.outputs[start : start + count], names, strict=True)
        )
        for start in (0, count, 2 * count)
    )
    return Verdict(whole, found.samples), Steps(weights, rounding)


class _Once:
    """The runs for all three comparisons, with one run of each model.

    `before` runs the models; `after`, called next on the same feeds, returns the other side.
    """

    def __init__(self, reference: Outputs, middle: Outputs, candidate: Outputs) -> None:
        self._models = reference, middle, candidate
        self._after: list[np.ndarray] = []

    def before(self, feeds: Feeds) -> list[np.ndarray]:
        old, middle, new = (list(run(feeds)) for run in self._models)
        self._after = [*new, *middle, *new]
        return [*old, *old, *middle]

    def after(self, feeds: Feeds) -> list[np.ndarray]:
        del feeds
        return self._after
