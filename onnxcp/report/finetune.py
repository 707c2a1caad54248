"""What a fine-tuning did, as people and as programs read it."""

import json
from dataclasses import asdict
from typing import Any

from onnxcp import __version__, escape
from onnxcp.measure.timing import Speedup
from onnxcp.report.format import accuracy
from onnxcp.report.json import plain
from onnxcp.runtime.environment import environment
from onnxcp.training.finetune import Finetuned, FinetuneMeasurements
from onnxcp.words import ACCEPTED, plural


def to_document(found: Finetuned, command: str = "") -> dict[str, Any]:
    """The run as plain JSON values."""
    asked, taught, measured = found.request, found.distilled, found.measured
    return {
        "tool": {"name": "onnxcp", "version": __version__},
        "command": command,
        "reference": str(asked.reference),
        "candidate": str(asked.candidate),
        "output": str(asked.output) if found.ok else None,
        "ok": found.ok,
        "provider": asked.target.name,
        "environment": environment(asked.target),
        "recipe": asdict(taught.recipe),
        "samples": {**taught.samples, "judge": measured.after.samples},
        "parity": taught.parity,
        "epochs": [asdict(epoch) for epoch in taught.trained.epochs],
        "best_epoch": taught.trained.best,
        "stopped": taught.trained.stopped,
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


def to_json(found: Finetuned, command: str = "") -> str:
    return json.dumps(plain(to_document(found, command)), indent=2, allow_nan=False) + "\n"


def to_text(found: Finetuned) -> str:
    """The epochs, then what they were worth."""
    found = escape.shown(found)
    measured, trained = found.measured, found.distilled.trained
    finding = found.baseline.finding
    lines = [] if finding is None else [f"! {ACCEPTED}: {finding}", ""]
    lines += [f"{'epoch':>5}{'loss':>12}{'held out':>12}{'agreement':>12}"]
    for epoch in trained.epochs:
        loss = "" if epoch.number == 0 else f"{epoch.loss:.5f}"
        same = "" if epoch.agreement is None else f"{epoch.agreement:.4f}"
        mark = "  best" if epoch.number == trained.best else ""
        lines.append(f"{epoch.number:>5}{loss:>12}{epoch.held_out:>12.5f}{same:>12}{mark}")
    if trained.stopped is not None:
        lines += ["", f"stopped: {trained.stopped}; epoch {trained.best} is kept"]
    counts = found.distilled.samples
    lines += [
        "",
        f"trained on    {plural(counts['train'], 'sample')}, {counts['held_out']} others watched",
        f"before        {accuracy(measured.before)}",
        f"after         {accuracy(measured.after)}",
        *_speed(measured),
        "",
        f"{found.request.output} written" if found.ok else "over budget: nothing was written",
    ]
    return "\n".join(lines)


def _interval(found: Speedup) -> str:
    return f"{found.ratio:.2f}× (95 % {found.low:.2f} to {found.high:.2f})"


def _unchanged(found: Speedup) -> str:
    """The speed over the candidate, which has the same graph: another ratio is the machine's, or
    that of weights which take longer, as subnormal ones do."""
    if not found.is_clear:
        return "only weights changed: the graph is the candidate's, and so is its speed"
    return (
        "only weights changed, the graph is the candidate's; yet it was measured "
        f"{found.verdict()} ({_interval(found)}): a busy machine, or subnormal weights"
    )


def _speed(measured: FinetuneMeasurements) -> list[str]:
    over, since = measured.over_reference, measured.over_candidate
    if over is None or since is None:
        return [f"speed-up      not known: {measured.busy}"]
    return [
        f"speed-up      {_interval(over)} over the reference",
        f"              {_unchanged(since)}",
    ]
