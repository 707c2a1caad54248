"""One run of `verify`: whether the surgery is right, and how much two models' outputs differ.

The surgery is right or wrong. The difference of outputs is judged by a tolerance or a budget, and
only reported without one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np

from onnxcp.data.pairs import every_sample, inputs_of_both, outputs
from onnxcp.data.roles import Inputs, Sources
from onnxcp.data.samples import Batching
from onnxcp.errors import ModelError, UsageError
from onnxcp.graph import io
from onnxcp.graph.input_specs import Feeds
from onnxcp.graph.structure import is_other_order, other_order
from onnxcp.measure.by_sample import lay_out
from onnxcp.measure.evaluator import Limits, Referee
from onnxcp.measure.judged_outputs import Judged, find
from onnxcp.measure.original_check import check_original, original_of
from onnxcp.options.tolerance import ToleranceOptions
from onnxcp.progress import Progress, silent
from onnxcp.quantization.dequantize import dequantised, is_in_pairs
from onnxcp.quantization.precision import FLOAT32, INT8, precision_of
from onnxcp.results import AccuracyRecord, BaselineRecord
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import Runner, open_runner
from onnxcp.storage import temporary
from onnxcp.verification import surgery
from onnxcp.verification.attribution import Steps, compare_in_steps
from onnxcp.verification.difference import Outputs, Tolerance, Verdict, compare
from onnxcp.verification.surgery import Surgery
from onnxcp.verification.tolerances import parse


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of both checks; `failures` says why it does not pass.

    `tolerances` are those that outputs were judged by. `verdict` is None if the candidate does
    not run, `steps` unless it is quantized by QuantizeLinear and DequantizeLinear. `precision` is
    the candidate's.
    """

    reference: str
    candidate: str
    surgery: Surgery
    verdict: Verdict | None
    steps: Steps | None
    accuracy: AccuracyRecord | None
    tolerances: Mapping[str, Tolerance]
    top_k: int
    failures: tuple[str, ...]
    target: Target
    reference_target: Target
    precision: str = FLOAT32
    notes: tuple[str, ...] = ()  # what is judged in the place of outputs that are not
    baseline: BaselineRecord = field(default_factory=BaselineRecord)

    @property
    def ok(self) -> bool:
        return not self.failures

    @property
    def is_judged(self) -> bool:
        """Whether a tolerance or a budget judges the approximation."""
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
    limits: Limits,
    bounds: ToleranceOptions,
    precision: str | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Check the surgery, run both models on the same samples, and judge.

    The reference runs on `reference_target`, by default the candidate's target. `precision` is
    the stated precision of the candidate. `bounds` and `limits` judge the approximation.

    Raises:
        UsageError: the models differ in their inputs or outputs, options contradict each other,
            or the candidate has another precision.
        OnnxcpError: a model is unreadable, data do not fit, or a provider does not load.
    """
    asked, first = parse(bounds), reference_target or target
    if not sources.data:
        limits.refuse_without_data()
    model, other = io.load(reference), io.load(candidate)
    kind = _as_stated(other, precision)
    inputs = inputs_of_both(model, other, sources)
    judged = find(model, first.unhurried, inputs.distinct_feeds)
    judged = replace(judged.in_both(other.proto.graph), is_whole=limits.is_whole)
    tolerances = asked.of(judged.comparable)
    baseline = BaselineRecord()
    if limits.max_drop is not None:
        runner = open_runner(reference, first)
        original = original_of(model, runner, inputs, sources, first, limits)
        baseline = check_original(original, accept=limits.accept_baseline, progress=progress)
    checked = surgery.check(model, other, inputs, target, first, progress)
    failures = list(_of_surgery(checked, model, other, is_required=bounds.require_surgery))
    verdict, steps, accuracy = None, None, None
    with temporary.folder() as folder:
        middle = _without_rounding(model, other, folder)
        del model, other
        progress("compare outputs", 0, 1)
        opened = judged.opened(reference, first, _wanted(judged))
        models = _Models(opened, candidate, middle, target, judged, inputs)
        try:
            verdict, steps, accuracy = models.compared(tolerances, bounds.top_k, limits, progress)
        except ModelError as error:
            if not failures:
                raise
            failures.append(error.text)
    failures += _failures(verdict, accuracy)
    return Comparison(
        str(reference),
        str(candidate),
        checked,
        verdict,
        steps,
        accuracy,
        tolerances,
        bounds.top_k,
        tuple(failures),
        target,
        first,
        kind,
        (*judged.notes, *inputs.notes),
        baseline,
    )


def _of_surgery(
    checked: Surgery, model: io.Model, other: io.Model, *, is_required: bool
) -> Iterable[str]:
    """What is wrong with the surgery, and outputs in another order where it was not checked."""
    yield from (f"surgery: {failure}" for failure in checked.failures)
    if is_required and checked.unchecked is not None:
        yield f"surgery: {checked.unchecked}"
    names, given = outputs(model), outputs(other)
    if checked.skipped is not None and is_other_order(names, given):
        yield other_order(names, given)


@dataclass(frozen=True, slots=True, eq=False)
class _Models:
    """The reference as it runs, and the files of the candidate, and of an int8 candidate without
    its rounding."""

    reference: Runner
    candidate: Path
    middle: Path | None
    target: Target
    judged: Judged
    inputs: Inputs

    def compared(
        self,
        tolerances: Mapping[str, Tolerance],
        top_k: int,
        limits: Limits,
        progress: Progress,
    ) -> tuple[Verdict, Steps | None, AccuracyRecord | None]:
        """How far their outputs are apart, and what the candidate loses.

        Raises:
            ModelError: the candidate does not run.
        """
        judged, names, old = self.judged, self.judged.comparable, self.reference
        new = judged.opened(self.candidate, self.target, _wanted(judged))
        middle = None
        if self.middle is not None:
            middle = judged.opened(self.middle, self.target, names)
        pair = (_Some(old, names), _Some(new, names))
        verdict, steps = _compared(*pair, middle, self.inputs, tolerances, top_k)
        pair = (_Some(old, judged.given), _Some(new, judged.given))
        accuracy = _accuracy(*pair, judged, self.inputs, limits, verdict, progress)
        return verdict, steps, accuracy


def _wanted(judged: Judged) -> tuple[str, ...]:
    """All tensors that are compared or judged, each once."""
    return tuple(dict.fromkeys((*judged.comparable, *judged.given)))


def _as_stated(model: io.Model, precision: str | None) -> str:
    """The precision of a model. Raises UsageError if another one was stated."""
    found = precision_of(model.proto)
    if precision not in (None, found):
        raise UsageError(
            f"<<precision={precision}>>: {model.path} is a {found} model; give the {precision} "
            "model that is to be checked, or leave the option out"
        )
    return found


def _without_rounding(reference: io.Model, model: io.Model, folder: Path) -> Path | None:
    """The int8 model without its rounding.

    None unless it is quantized by QuantizeLinear and DequantizeLinear and the reference is not.
    """
    if not is_in_pairs(model.proto) or precision_of(reference.proto) == INT8:
        return None
    path = folder / f"{model.path.stem}.dequantised.onnx"
    io.save(dequantised(model.proto), path)
    return path


class _Some:
    """A runner that returns only the named outputs, in the order of the names."""

    def __init__(self, runner: Runner, names: Sequence[str]) -> None:
        self._runner, self.outputs = runner, tuple(names)
        self._places = [runner.outputs.index(name) for name in names]

    def __call__(self, feeds: Feeds) -> list[np.ndarray]:
        results = self._runner(feeds)
        return [results[place] for place in self._places]


def _compared(
    reference: "_Some",
    candidate: "_Some",
    middle: Outputs | None,
    inputs: Inputs,
    tolerances: Mapping[str, Tolerance],
    top_k: int,
) -> tuple[Verdict, Steps | None]:
    samples, names = every_sample(inputs), reference.outputs
    old, new = cast("Outputs", reference), cast("Outputs", candidate)
    if samples is None:
        feeds, numbers = inputs.synthetic.batches(1), None
    else:
        batching = lay_out(reference, samples, inputs.batching).batching
        feeds, numbers = samples.batches(batching.step), samples.numbers
        old, new = _filled(old, batching), _filled(new, batching)
        middle = None if middle is None else _filled(middle, batching)
    if middle is None:
        return compare(
            old, new, names, feeds, tolerance=tolerances, top_k=top_k, numbers=numbers
        ), None
    return compare_in_steps(
        old, middle, new, names, feeds, tolerance=tolerances, top_k=top_k, numbers=numbers
    )


def _filled(runner: Outputs, batching: Batching) -> Outputs:
    return lambda feeds: batching.run(runner, feeds)


def _accuracy(
    old: "_Some",
    new: "_Some",
    judged: Judged,
    inputs: Inputs,
    limits: Limits,
    verdict: Verdict,
    progress: Progress,
) -> AccuracyRecord | None:
    if limits.metric is None and limits.max_drop is None:
        return None
    if any(np.isnan(output.relative_l2) for output in verdict.outputs):
        return None  # of unlike shapes, which is failure enough
    found = Referee(old, inputs, limits, progress, judged).judge(new)
    return found if limits.max_drop is not None else replace(found, budget=None)


def _failures(verdict: Verdict | None, judged: AccuracyRecord | None) -> Iterable[str]:
    for output in () if verdict is None else verdict.outputs:
        if output.failure is not None:
            yield f"{output.output}: {output.failure}"
    if judged is not None and judged.budget is not None and not judged.drop <= judged.budget:
        worse = f"{judged.metric} {judged.worsening} {judged.drop:.4f}"
        yield f"{worse} exceeds {judged.budget:.4g}"
