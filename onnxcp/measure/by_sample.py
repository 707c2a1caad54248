"""Outputs by sample: which axis of an output holds the samples is found by test runs.

Declared shapes do not say it: a detector outputs [anchors, 4] for one image, or
[batch × anchors, 4] for several. So two samples run separately and together. If every output of
both together is the concatenation of the separate ones, samples are evaluated in batches; else one
by one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxcp.data.samples import Batching, Samples
from onnxcp.errors import ModelError, UsageError
from onnxcp.graph.input_specs import Feeds, Shape

Outputs = Callable[[Feeds], Sequence[np.ndarray]]

SAME = 0.01  # relative L2: the kernels of another batch size round differently


@dataclass(frozen=True, slots=True)
class Layout:
    """What is judged of a model's outputs, in their order: `places` among all that it gives;
    `shapes` are those of one sample, [classes or channels, positions…]."""

    names: tuple[str, ...]
    places: tuple[int, ...]
    shapes: tuple[Shape, ...]
    batching: Batching
    given: tuple[str, ...] = ()  # all that the model gives, in order

    def run(self, runner: Outputs, feeds: Feeds) -> list[np.ndarray]:
        """The judged outputs on at most `batching.step` samples, [samples, …] each."""
        return self.arranged(self.batching.run(runner, feeds))

    def arranged(self, results: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The judged ones of a run's outputs, with samples first."""
        return [by_sample(results[place], self.batching) for place in self.places]

    def batches(self, runner: Outputs, samples: Samples) -> Iterator[list[np.ndarray]]:
        """The judged outputs of all samples, batch by batch."""
        for feeds in samples.batches(self.batching.step):
            yield self.run(runner, feeds)


def by_sample(output: np.ndarray, batching: Batching) -> np.ndarray:
    """[samples, classes or channels, positions…] of one run: of a sample that was alone in it,
    the second axis, which holds channels, stays the second."""
    if not batching.alone:
        return output.reshape(len(output), 1) if output.ndim == 1 else output
    if output.ndim > 1 and len(output) == 1:
        return output
    if output.ndim < 2:
        return output.reshape(1, -1)
    return np.moveaxis(output, 0, -1)[None]


def lay_out(
    runner: Outputs,
    samples: Samples,
    batching: Batching,
    judged: Sequence[str] | None = None,
    *,
    whole: bool = False,
) -> Layout:
    """How outputs are judged by fed sample, found out by a few runs: those `judged`, of all of
    them the numbers. With `whole` samples go in together only where all outputs, also those that
    are not judged, keep them apart.

    Raises:
        ModelError: the model does not run on one sample.
        UsageError: it gives nothing that could be judged.
    """
    batching = replace(batching, alone=True)
    one = batching.run(runner, samples.read(0, 1))
    names = getattr(runner, "outputs", tuple(f"output {n}" for n in range(len(one))))
    places = judged_places(one) if judged is None else tuple(map(names.index, judged))
    checked = range(len(one)) if whole else places
    if len(samples) > 1 and _stacks(runner, samples, batching, one, checked):
        batching = replace(batching, alone=False)
        one = batching.run(runner, samples.read(0, 1))
    shapes = tuple(by_sample(one[place], batching).shape[1:] for place in places)
    return Layout(tuple(names[p] for p in places), places, shapes, batching, tuple(names))


def judged_places(results: Sequence[object]) -> tuple[int, ...]:
    """Which of a run's results are judged: tensors of floats, or of whole numbers where there
    are no others.

    Raises:
        UsageError: there are none.
    """
    for kinds in ("f", "iub"):
        places = tuple(
            place
            for place, result in enumerate(results)
            if isinstance(result, np.ndarray) and result.dtype.kind in kinds and result.size
        )
        if places:
            return places
    raise UsageError(
        "the model gives no tensor of numbers, so nothing can be judged; export it with the "
        "scores among its outputs"
    )


def _stacks(
    runner: Outputs,
    samples: Samples,
    batching: Batching,
    one: Sequence[np.ndarray],
    places: Sequence[int],
) -> bool:
    """Whether two samples together give what they give apart, in a row."""
    if batching.fixed and batching.size == 1:
        return False
    first, second = samples.read(0, 1), samples.at([len(samples) // 2]).read(0, 1)
    two = batching.run(runner, second)
    together = {name: np.concatenate([first[name], second[name]]) for name in first}
    turns = np.arange(batching.size if batching.fixed else 2) % 2
    try:
        both = runner({name: array[turns] for name, array in together.items()})
    except ModelError:  # a batch that is free in name only
        return False
    rows = len(turns) if batching.fixed else 1  # of what one sample gives where rows are samples
    return all(
        _alike(_in_turns(one[place], two[place], turns, rows), both[place]) for place in places
    )


def _in_turns(a: np.ndarray, b: np.ndarray, turns: np.ndarray, rows: int) -> np.ndarray | None:
    """What two samples in turns give by what each of them gives alone; None where not every row
    of an output can be a sample's."""
    if not (isinstance(b, np.ndarray) and a.ndim and a.shape == b.shape and len(a) == rows):
        return None
    pair = np.stack([a, b])
    mixed: np.ndarray = pair[turns, np.arange(len(turns)) % rows]
    return mixed


def _alike(wanted: np.ndarray | None, given: np.ndarray) -> bool:
    if wanted is None or wanted.shape != np.shape(given):
        return False
    if wanted.dtype.kind not in "fiub":
        return bool((wanted == given).all())
    a, b = np.nan_to_num(wanted.astype(np.float64)), np.nan_to_num(given.astype(np.float64))
    return float(np.linalg.norm(a - b)) <= SAME * float(np.linalg.norm(a))
