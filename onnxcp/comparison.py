"""What `verify` does: compare two models' outputs, and their accuracy where asked."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from onnxcp import files
from onnxcp.errors import UsageError
from onnxcp.inputs import Inputs, Sources, prepare
from onnxcp.judging import Limits, Referee
from onnxcp.progress import Progress, silent
from onnxcp.providers import Target
from onnxcp.report.record import AccuracyRecord
from onnxcp.report.words import accuracy
from onnxcp.sessions import Runner, open_runner
from onnxcp.tensors import Feeds
from onnxcp.verify import STATS, Tolerance, Verdict, compare

MOST_SAMPLES = 64  # compared elementwise; accuracy uses all of them
ALIKE = "compare models of the same interface"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Outputs apart, and the accuracy lost; `failures` says why it does not pass."""

    reference: str
    candidate: str
    verdict: Verdict
    accuracy: AccuracyRecord | None
    failures: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.failures


def tolerance(
    rtol: float | None, atol: float | None, stat: str
) -> dict[str, Tolerance] | Tolerance | None:
    """The rule that options ask for; None without rtol and atol. `OUTPUT:STAT` is for one
    output, and the others are then judged elementwise.

    Raises:
        UsageError: an unknown statistic, or one without a tolerance.
    """
    output, _, name = stat.rpartition(":")
    if name not in STATS:
        raise UsageError(f"--check-error-stat {stat}: choose one of {', '.join(STATS)}")
    if rtol is None and atol is None:
        if stat != STATS[0]:
            raise UsageError(f"--check-error-stat {stat}: bounds nothing; give --rtol or --atol")
        return None
    made = Tolerance(rtol or 0.0, atol or 0.0, name)
    return {output: made} if output else made


def run(
    reference: Path,
    candidate: Path,
    sources: Sources,
    target: Target,
    *,
    tolerance: dict[str, Tolerance] | Tolerance | None,
    metric: str | None,
    max_drop: str | None,
    progress: Progress = silent,
) -> Comparison:
    """Run both models on the same samples and judge.

    Raises:
        UsageError: the models differ in their inputs or outputs, or options contradict.
        OnnxcpError: an unreadable model, unfit data, or a provider that does not load.
    """
    limits = Limits(max_drop, None, metric)
    if not sources.data:
        limits.refuse_without_data()
    model, other = files.load(reference), files.load(candidate)
    inputs = prepare(model.inputs, sources)
    old, new = open_runner(reference, target), open_runner(candidate, target)
    _refuse_strangers(old, new, {s.name for s in model.inputs}, {s.name for s in other.inputs})
    rules = _rules(tolerance, old.outputs)
    verdict = compare(old, new, old.outputs, _feeds(inputs), tolerance=rules)
    judged = None
    if metric is not None or max_drop is not None:
        judged = Referee(old, inputs, limits, progress).judge(new)
    failures = tuple(_failures(verdict, judged if max_drop is not None else None))
    return Comparison(str(reference), str(candidate), verdict, judged, failures)


def _rules(
    tolerance: dict[str, Tolerance] | Tolerance | None, outputs: Sequence[str]
) -> dict[str, Tolerance] | Tolerance | None:
    """A tolerance for every output: elementwise where another one was given its own."""
    if not isinstance(tolerance, dict):
        return tolerance
    for name, rule in tolerance.items():
        if name not in outputs:
            raise UsageError(
                f"--check-error-stat {name}:{rule.stat}: no such output; the model gives "
                f"{', '.join(outputs)}"
            )
    rule = next(iter(tolerance.values()))
    return {name: replace(rule, stat="elemwise") for name in outputs} | tolerance


def _refuse_strangers(old: Runner, new: Runner, fed: set[str], other: set[str]) -> None:
    if fed != other:
        names = f"{', '.join(sorted(fed))} and {', '.join(sorted(other))}"
        raise UsageError(f"the models take different inputs, {names}; {ALIKE}")
    if old.outputs != new.outputs:
        names = f"{', '.join(old.outputs)} and {', '.join(new.outputs)}"
        raise UsageError(f"the models give different outputs, {names}; {ALIKE}")


def _feeds(inputs: Inputs) -> Iterable[Feeds]:
    if inputs.samples is None:
        return inputs.synthetic.batches(1)
    if inputs.batching.fixed:
        return inputs.checked
    return inputs.samples.first(MOST_SAMPLES).batches(inputs.batching.size)


def _failures(verdict: Verdict, judged: AccuracyRecord | None) -> Iterable[str]:
    for output in verdict.outputs:
        if output.failure is not None:
            yield f"{output.output}: {output.failure}"
    if judged is not None and judged.budget is not None and judged.drop > judged.budget:
        yield f"{judged.metric} drop {judged.drop:.4f} exceeds {judged.budget:.4g}"


def as_json(found: Comparison) -> str:
    """The comparison for programs."""
    document: dict[str, Any] = {
        "reference": found.reference,
        "candidate": found.candidate,
        "ok": found.ok,
        "failures": list(found.failures),
        "samples": found.verdict.samples,
        "outputs": [asdict(o) for o in found.verdict.outputs],
        "accuracy": None if found.accuracy is None else asdict(found.accuracy),
    }
    return json.dumps(document, indent=2)


def as_text(found: Comparison) -> str:
    """A line for every output, then the verdict."""
    lines = [f"{'output':<24}{'rel. L2':>11}{'max abs':>11}{'cosine':>10}{'agreement':>11}"]
    for o in found.verdict.outputs:
        same = "" if o.agreement is None else f"{o.agreement:.4f}"
        lines.append(
            f"{o.output[:23]:<24}{o.relative_l2:>11.2e}{o.max_abs:>11.2e}{o.cosine:>10.6f}{same:>11}"
        )
    if found.accuracy is not None:
        lines += ["", accuracy(found.accuracy)]
    lines += ["", *(f"FAILED {failure}" for failure in found.failures)]
    return "\n".join(lines + (["passed"] if found.ok else []))
