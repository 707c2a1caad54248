"""The report of a benchmark as text, page and JSON, and the times of all runs."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from onnxcp.escape import shown
from onnxcp.measure.baseline import VERSION, Change
from onnxcp.measure.benchmark import Run, Timed
from onnxcp.measure.timing import Speedup, Timing, disturbance, median_interval
from onnxcp.report.table import Page, Table, names, numbers
from onnxcp.runtime.cores import GIVEN, WORDS

FIGURES = ("mean", "min", "p50", "p90", "p95", "p99", "std")
COLUMN_WIDTH = 12
NOISE = (
    "noisy: half of the runs spread over more than 20 % of the median; close other programs, "
    "or raise <<duration>>"
)


def to_document(timed: Timed, changes: Sequence[Change] = ()) -> dict[str, Any]:
    """The result as plain values, in milliseconds and samples per second.

    The option `baseline` reads this document.
    """
    target = timed.target
    return {
        "benchmark_version": VERSION,
        "models": list(timed.models),
        "precision": timed.precision,
        "precisions": list(timed.precisions),
        "provider": target.name,
        "provider_options": target.settings,
        "threads": target.count,
        "threads_from": target.why_count,
        "cuda_graph": target.has_graph,
        "runs": [_run(run) for run in timed.runs],
        "change": [{"batch": c.batch, "slower": c.slower, "ci": [c.low, c.high]} for c in changes],
        "environment": timed.environment,
    }


def page(timed: Timed, changes: Sequence[Change] = ()) -> Page:
    """The result as a page: a row per model and batch size, and the ratio of two models."""
    rows = [
        (name, str(run.batch), *figures, f"{run.batch / timing.median:.1f}")
        for run in timed.runs
        for name, timing in zip(timed.models, run.timings, strict=True)
        for figures in [[f"{timing.milliseconds()[key]:.4f}" for key in FIGURES]]
    ]
    columns = [names("model"), *numbers("batch", *FIGURES, "samples/s")]
    facts = list(zip(_letters(timed), timed.models, strict=True))
    facts.append(("milliseconds", _conditions(timed)))
    facts += [(f"batch {run.batch}", words) for run in timed.runs if (words := _speedup_words(run))]
    facts += [(f"batch {change.batch}", change.words) for change in changes]
    is_noisy = any(timing.is_noisy for run in timed.runs for timing in run.timings)
    warnings = [NOISE] if is_noisy else []
    document = to_document(timed, changes)
    return Page(_headline(timed), document, warnings, facts, [Table(columns, rows)])


def _headline(timed: Timed) -> str:
    run = timed.runs[0]
    first = run.timings[0]
    if run.speedup is not None:
        return _verdict(run.speedup)
    return f"{1e3 * first.median:.4f} ms median of {len(first.counted)} runs"


def _letters(timed: Timed) -> list[str]:
    """What the models are called where there are two: A and B."""
    return [chr(ord("A") + number) for number in range(len(timed.models))]


def _run(run: Run) -> dict[str, Any]:
    speedup = run.speedup
    return {
        "batch": run.batch,
        "shapes": {name: list(shape) for name, shape in run.shapes.items()},
        "turns": len(run.timings[0].seconds),
        **_disturbed(run),
        "models": [_model(run.batch, timing) for timing in run.timings],
        "speedup": None
        if speedup is None
        else {"ratio": speedup.ratio, "ci": [speedup.low, speedup.high]},
        "verdict": None if speedup is None else speedup.verdict(),
    }


def _disturbed(run: Run) -> dict[str, Any]:
    """In how many turns other work ran, and whether processor times were compared instead."""
    first, last = run.timings[0], run.timings[-1]
    disturbed = disturbance(first, last)
    return {
        "disturbed": disturbed.disturbed,
        "by_processor": len(run.timings) == 2 and disturbed.by_processor,
    }


def _model(batch: int, timing: Timing) -> dict[str, Any]:
    low, high = median_interval(timing)
    return {
        "milliseconds": timing.milliseconds(),
        "p50_ci": [1e3 * low, 1e3 * high],
        "throughput": batch / timing.median,
        "noisy": timing.is_noisy,
    }


def to_text(timed: Timed, changes: Sequence[Change] = ()) -> str:
    """The result as text: a column of milliseconds per model, and the ratio of two models.

    With several batch sizes, one line for each.
    """
    timed = shown(timed)
    letters = _letters(timed)
    lines = [f"{letter}: {name}" for letter, name in zip(letters, timed.models, strict=True)]
    lines += [_conditions(timed), ""]
    lines += _one(timed.runs[0], letters) if len(timed.runs) == 1 else _sweep(timed.runs, letters)
    if any(timing.is_noisy for run in timed.runs for timing in run.timings):
        lines += ["", NOISE]
    if changes:
        lines += ["", *(_changed(change) for change in changes)]
    return "\n".join(lines)


def _conditions(timed: Timed) -> str:
    target = timed.target
    options = [f"{key}={value}" for key, value in sorted(target.settings.items())]
    threads = f"{target.count} thread{'s' * (target.count != 1)}"
    if target.why_count != GIVEN:
        threads += f" ({WORDS[target.why_count]})"
    where = timed.environment.get("gpu") or timed.environment["cpu"]
    return ", ".join([f"on {where}", f"provider {target.name}", threads, *options])


def _one(run: Run, letters: Sequence[str]) -> list[str]:
    figures = [timing.milliseconds() for timing in run.timings]
    rates = [run.batch / timing.median for timing in run.timings]
    counted = min(len(timing.counted) for timing in run.timings)
    lines = [f"{counted} runs each, batch {run.batch}, milliseconds"]
    lines.append(_row("", [f"{letter:>{COLUMN_WIDTH}}" for letter in letters]))
    lines += [_row(key, [f"{f[key]:>{COLUMN_WIDTH}.4f}" for f in figures]) for key in FIGURES]
    lines.append(_row("samples/s", [f"{rate:>{COLUMN_WIDTH}.1f}" for rate in rates]))
    words = _speedup_words(run)
    return lines if words is None else [*lines, "", words]


def _sweep(runs: Sequence[Run], letters: Sequence[str]) -> list[str]:
    heads = [
        f"{f'{letter} {what}':>{COLUMN_WIDTH}}"
        for letter in letters
        for what in ("p50 ms", "samples/s")
    ]
    lines = [_row("batch", heads)]
    for run in runs:
        cells = [
            f"{1e3 * t.median:>{COLUMN_WIDTH}.4f}{run.batch / t.median:>{COLUMN_WIDTH}.1f}"
            for t in run.timings
        ]
        lines.append(_row(str(run.batch), cells))
    ratios = [
        f"batch {run.batch}: {words}" for run in runs if (words := _speedup_words(run)) is not None
    ]
    return [*lines, "", *ratios] if ratios else lines


def _row(head: str, cells: Sequence[str]) -> str:
    return f"{head:<{COLUMN_WIDTH}}" + "".join(cells)


def _speedup_words(run: Run) -> str | None:
    """The ratio of two models in words; None for one model."""
    ratio = run.speedup
    if ratio is None:
        return None
    other = disturbance(*run.timings).words()
    figures = f"A/B {ratio.ratio:.3f}, 95 % {ratio.low:.3f} to {ratio.high:.3f}"
    return f"{_verdict(ratio)} ({figures}{other and '; ' + other})"


def _verdict(ratio: Speedup) -> str:
    return ratio.verdict() if not ratio.is_clear else f"B is {ratio.verdict()} than A"


def _changed(change: Change) -> str:
    return f"batch {change.batch}: {change.words}"


def times(timed: Timed, suffix: str) -> str:
    """The milliseconds of every run, as JSON for the suffix ".json", else as CSV."""
    rows = [
        {
            "model": name,
            "batch": run.batch,
            "turn": turn,
            "ms": 1e3 * seconds,
            "disturbed": not timing.is_clean[turn],
        }
        for run in timed.runs
        for name, timing in zip(timed.models, run.timings, strict=True)
        for turn, seconds in enumerate(timing.seconds)
    ]
    if suffix == ".json":
        return json.dumps(rows, indent=0) + "\n"
    text = io.StringIO()
    writer = csv.DictWriter(
        text, ["model", "batch", "turn", "ms", "disturbed"], lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
