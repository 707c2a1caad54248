"""What `verify` does: is the surgery right, and how far are two models' outputs apart.

The first is a matter of right and wrong, the second of what it is held against: without a
tolerance or a budget it is reported and not judged.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from onnxcp import files, surgery
from onnxcp.errors import ModelError
from onnxcp.inputs import Inputs, Sources
from onnxcp.interface import every_sample, inputs_of_both, outputs
from onnxcp.judging import Limits, Referee
from onnxcp.progress import Progress, silent
from onnxcp.providers import Target
from onnxcp.report.record import AccuracyRecord
from onnxcp.samples import Batching
from onnxcp.sessions import Runner, open_runner
from onnxcp.structure import is_other_order, other_order
from onnxcp.surgery import Surgery
from onnxcp.tensors import Feeds
from onnxcp.tolerances import Tolerances
from onnxcp.verify import TOP_K, Outputs, Tolerance, Verdict, compare


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the approximation is judged by, and how many channels `top_k` looks at."""

    tolerances: Tolerances = field(default_factory=Tolerances)
    metric: str | None = None
    max_drop: str | None = None
    top_k: int = TOP_K


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both questions answered; `failures` says why it does not pass. `tolerances` are those
    that outputs were held against. The verdict is None where the candidate does not run."""

    reference: str
    candidate: str
    surgery: Surgery
    verdict: Verdict | None
    accuracy: AccuracyRecord | None
    tolerances: Mapping[str, Tolerance]
    top_k: int
    failures: tuple[str, ...]
    target: Target
    reference_target: Target

    @property
    def ok(self) -> bool:
        return not self.failures

    @property
    def is_judged(self) -> bool:
        """Whether anything bounds the approximation."""
        return bool(self.tolerances) or (
            self.accuracy is not None and self.accuracy.budget is not None
        )


def run(
    reference: Path,
    candidate: Path,
    sources: Sources,
    target: Target,
    reference_target: Target | None = None,
    *,
    bounds: Bounds,
    progress: Progress = silent,
) -> Comparison:
    """Check the surgery, run both models on the same samples, and judge. The reference runs on
    `reference_target`, that of the candidate by default.

    Raises:
        UsageError: the models differ in their inputs or outputs, or options contradict.
        OnnxcpError: an unreadable model, unfit data, or a provider that does not load.
    """
    limits = Limits(bounds.max_drop, None, bounds.metric)
    if not sources.data:
        limits.refuse_without_data()
    model, other = files.load(reference), files.load(candidate)
    inputs = inputs_of_both(model, other, sources)
    names, given = outputs(model), outputs(other)
    tolerances = bounds.tolerances.of(names)
    old_target = reference_target or target
    found = surgery.check(model, other, inputs, target, old_target, progress)
    failures = [f"surgery: {failure}" for failure in found.failures]
    if found.skipped is not None and is_other_order(names, given):
        failures.append(other_order(names, given))
    del model, other
    old = open_runner(reference, old_target)
    verdict, judged = None, None
    try:
        new = _reordered(open_runner(candidate, target), names)
        progress("compare outputs", 0, 1)
        verdict = _compared(old, new, inputs, names, tolerances, bounds.top_k)
        judged = _accuracy(old, new, inputs, limits, verdict, progress)
    except ModelError as error:
        if not failures:
            raise
        failures.append(str(error))
    failures += _failures(verdict, judged)
    return Comparison(
        str(reference),
        str(candidate),
        found,
        verdict,
        judged,
        tolerances,
        bounds.top_k,
        tuple(failures),
        target,
        old_target,
    )


def _reordered(runner: Runner, names: Sequence[str]) -> Outputs:
    """A runner that gives its outputs in the order of these names."""
    places = [runner.outputs.index(name) for name in names]

    def given(feeds: Feeds) -> list[np.ndarray]:
        results = runner(feeds)
        return [results[place] for place in places]

    return given


def _compared(
    old: Outputs,
    new: Outputs,
    inputs: Inputs,
    names: Sequence[str],
    tolerances: Mapping[str, Tolerance],
    top_k: int,
) -> Verdict:
    samples, batching = every_sample(inputs), inputs.batching
    if samples is None:
        feeds = inputs.synthetic.batches(1)
        return compare(old, new, names, feeds, tolerance=tolerances, top_k=top_k)
    return compare(
        _filled(old, batching),
        _filled(new, batching),
        names,
        samples.batches(batching.size),
        tolerance=tolerances,
        top_k=top_k,
        numbers=samples.numbers,
    )


def _filled(runner: Outputs, batching: Batching) -> Outputs:
    return lambda feeds: batching.run(runner, feeds)


def _accuracy(
    old: Outputs,
    new: Outputs,
    inputs: Inputs,
    limits: Limits,
    verdict: Verdict,
    progress: Progress,
) -> AccuracyRecord | None:
    if limits.metric is None and limits.max_drop is None:
        return None
    if any(np.isnan(output.relative_l2) for output in verdict.outputs):
        return None  # of unlike shapes, which is failure enough
    judged = Referee(old, inputs, limits, progress).judge(new)
    return judged if limits.max_drop is not None else replace(judged, budget=None)


def _failures(verdict: Verdict | None, judged: AccuracyRecord | None) -> Iterable[str]:
    for output in () if verdict is None else verdict.outputs:
        if output.failure is not None:
            yield f"{output.output}: {output.failure}"
    if judged is not None and judged.budget is not None and not judged.drop <= judged.budget:
        yield f"{judged.metric} drop {judged.drop:.4f} exceeds {judged.budget:.4g}"
