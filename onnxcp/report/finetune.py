"""The report of `finetune` as text, page and JSON."""

from dataclasses import asdict
from typing import Any

from onnxcp import __version__, escape
from onnxcp.measure.timing import Speedup
from onnxcp.report.format import accuracy
from onnxcp.report.table import Page, Table, numbers, texts
from onnxcp.results import EpochRecord
from onnxcp.runtime.environment import environment
from onnxcp.training.finetune import Finetuned, FinetuneMeasurements
from onnxcp.words import ACCEPTED, plural


def to_document(found: Finetuned, command: str = "") -> dict[str, Any]:
    """The run as plain values for JSON."""
    request, distilled, measured = found.request, found.distilled, found.measured
    return {
        "tool": {"name": "onnxcp", "version": __version__},
        "command": command,
        "reference": str(request.reference),
        "candidate": str(request.candidate),
        "output": str(request.output) if found.ok else None,
        "ok": found.ok,
        "provider": request.target.name,
        "environment": environment(request.target),
        "recipe": asdict(distilled.recipe),
        "samples": {**distilled.samples, "judge": measured.after.samples},
        "parity": distilled.parity,
        "epochs": [asdict(epoch) for epoch in distilled.trained.epochs],
        "best_epoch": distilled.trained.best,
        "stopped": distilled.trained.stopped,
        "baseline": asdict(found.baseline),
        "accuracy_before": asdict(measured.before),
        "accuracy": asdict(measured.after),
        "surgery_relative_l2": measured.surgery_l2,
        "speedup": _ratio(measured.over_reference),
        "speedup_over_candidate": _ratio(measured.over_candidate),
        "seconds": found.seconds,
    }


def _ratio(found: Speedup | None) -> dict[str, Any] | None:
    return None if found is None else {"ratio": found.ratio, "ci": [found.low, found.high]}


def page(found: Finetuned, command: str = "") -> Page:
    """The run as a page: accuracy and speed before and after, and a row per epoch."""
    finding, trained = found.baseline.finding, found.distilled.trained
    warnings = [] if finding is None else [f"{ACCEPTED}: {finding}"]
    facts = [("", _stopped(found))] if trained.stopped is not None else []
    rows = [_epoch(epoch, trained.best) for epoch in trained.epochs]
    table = Table([*numbers("epoch", "loss", "held out", "agreement"), texts("")], rows)
    document = to_document(found, command)
    return Page(_verdict(found), document, warnings, [*facts, *_facts(found)], [table], command)


def _verdict(found: Finetuned) -> str:
    return f"{found.request.output} written" if found.ok else "over budget: nothing was written"


def _stopped(found: Finetuned) -> str:
    trained = found.distilled.trained
    return f"stopped: {trained.stopped}; epoch {trained.best} is kept"


def _epoch(epoch: EpochRecord, best: int) -> tuple[str, ...]:
    return (
        str(epoch.number),
        "" if epoch.number == 0 else f"{epoch.loss:.5f}",
        f"{epoch.held_out:.5f}",
        "" if epoch.agreement is None else f"{epoch.agreement:.4f}",
        "best" if epoch.number == best else "",
    )


def _facts(found: Finetuned) -> list[tuple[str, str]]:
    counts, measured = found.distilled.samples, found.measured
    held_out = f"{counts['held_out']} others for validation"
    return [
        ("trained on", f"{plural(counts['train'], 'sample')}, {held_out}"),
        ("before", accuracy(measured.before)),
        ("after", accuracy(measured.after)),
        *_speed(measured),
    ]


def to_text(found: Finetuned) -> str:
    """The run as text: a line per epoch, then accuracy and speed."""
    found = escape.shown(found)
    finding, trained = found.baseline.finding, found.distilled.trained
    lines = [] if finding is None else [f"! {ACCEPTED}: {finding}", ""]
    lines += [f"{'epoch':>5}{'loss':>12}{'held out':>12}{'agreement':>12}"]
    for epoch in trained.epochs:
        number, loss, held_out, same, mark = _epoch(epoch, trained.best)
        lines.append(f"{number:>5}{loss:>12}{held_out:>12}{same:>12}  {mark}".rstrip())
    if trained.stopped is not None:
        lines += ["", _stopped(found)]
    facts = [f"{label:<14}{value}" for label, value in _facts(found)]
    return "\n".join([*lines, "", *facts, "", _verdict(found)])


def _interval(found: Speedup) -> str:
    return f"{found.ratio:.2f}× (95 % {found.low:.2f} to {found.high:.2f})"


def _unchanged(found: Speedup) -> str:
    """The speed against the candidate, which has the same graph.

    A clear difference comes from the machine, or from weights that are slower to compute with, such
    as subnormal ones.
    """
    if not found.is_clear:
        return "only weights changed: graph and speed are those of the candidate"
    return (
        "only weights changed, the graph is the candidate's; but it was measured "
        f"{found.verdict()} ({_interval(found)}): the machine was busy, or weights are subnormal"
    )


def _speed(measured: FinetuneMeasurements) -> list[tuple[str, str]]:
    over_reference, over_candidate = measured.over_reference, measured.over_candidate
    if over_reference is None or over_candidate is None:
        return [("speed-up", f"not known: {measured.busy}")]
    return [
        ("speed-up", f"{_interval(over_reference)} over the reference"),
        ("", _unchanged(over_candidate)),
    ]
