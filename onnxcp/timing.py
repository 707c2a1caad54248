"""What `benchmark` does: time one model, or two in turns."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxcp import files
from onnxcp.benchmark import Speedup, Timing, speedup, take_turns
from onnxcp.environment import environment
from onnxcp.errors import UsageError
from onnxcp.inputs import Sources, prepare
from onnxcp.progress import Progress
from onnxcp.providers import Target
from onnxcp.sessions import Runner, open_runner
from onnxcp.tensors import Feeds

MOST_TURNS = 100_000
FIGURES = ("mean", "min", "p50", "p90", "p95", "p99", "std")


@dataclass(frozen=True, slots=True)
class Length:
    """At least `iterations` turns and at least `seconds`, after `warmup` turns."""

    warmup: int
    iterations: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Timed:
    """One or two models' timings, and the ratio of the first to the second."""

    models: tuple[str, ...]
    timings: tuple[Timing, ...]
    batch: int
    environment: dict[str, Any]
    threads: int

    @property
    def speedup(self) -> Speedup | None:
        return speedup(*self.timings) if len(self.timings) == 2 else None


def run(
    paths: Sequence[Path], sources: Sources, target: Target, length: Length, progress: Progress
) -> Timed:
    """Time models on the same feeds.

    Raises:
        UsageError: the two models do not take the same inputs.
        OnnxcpError: an unreadable model, unfit data, or a provider that does not load.
    """
    models = [files.load(path) for path in paths]
    names = [sorted(s.name for s in m.inputs) for m in models]
    if names[0] != names[-1]:
        raise UsageError(
            f"{paths[0]} and {paths[-1]} take different inputs ({', '.join(names[0])} and "
            f"{', '.join(names[-1])}); compare models of the same interface"
        )
    feeds = prepare(models[0].inputs, sources).timed
    runners = [open_runner(path, target) for path in paths]
    timings = _time(runners, feeds, length, progress)
    batch = next((len(a) for a in feeds.values() if a.ndim), 1)
    shown = tuple(str(p) for p in paths)
    return Timed(shown, timings, batch, environment(target), target.threads)


def _time(
    runners: Sequence[Runner], feeds: Feeds, length: Length, progress: Progress
) -> tuple[Timing, ...]:
    """As many turns as the longer of the two lengths asks for, by a first estimate."""
    subjects = [_bound(runner, feeds) for runner in runners]
    clock = time.perf_counter
    trial = take_turns(subjects, clock, turns=3, warmup=max(1, length.warmup))
    each = sum(t.median for t in trial)
    wanted = round(min(MOST_TURNS, length.seconds / each))
    turns = min(MOST_TURNS, max(length.iterations, wanted))
    return take_turns(
        subjects,
        clock,
        turns=turns,
        warmup=0,
        progress=lambda done: progress("benchmark", done, turns),
    )


def _bound(runner: Runner, feeds: Feeds) -> Callable[[], object]:
    return lambda: runner(feeds)


def as_json(timed: Timed) -> str:
    """Figures in milliseconds, throughput in samples a second."""
    rows = [
        {"model": m, "milliseconds": t.milliseconds(), "throughput": timed.batch / t.median}
        for m, t in zip(timed.models, timed.timings, strict=True)
    ]
    ratio = timed.speedup
    found = None if ratio is None else {"ratio": ratio.ratio, "ci": [ratio.low, ratio.high]}
    document = {
        "models": rows,
        "speedup": found,
        "verdict": None if ratio is None else ratio.verdict(),
        "turns": len(timed.timings[0].seconds),
        "batch": timed.batch,
        "threads": timed.threads,
        "environment": timed.environment,
    }
    return json.dumps(document, indent=2)


def as_text(timed: Timed) -> str:
    """A column of milliseconds for every model, and the ratio of two."""
    turns = len(timed.timings[0].seconds)
    lines = [f"{chr(ord('A') + i)}: {name}" for i, name in enumerate(timed.models)]
    lines += ["", f"{turns} runs each, batch {timed.batch}, milliseconds"]
    lines.append(
        f"{'':<12}" + "".join(f"{chr(ord('A') + i):>12}" for i in range(len(timed.models)))
    )
    figures = [t.milliseconds() for t in timed.timings]
    lines += [f"{key:<12}" + "".join(f"{f[key]:>12.4f}" for f in figures) for key in FIGURES]
    rates = "".join(f"{timed.batch / t.median:>12.1f}" for t in timed.timings)
    lines.append(f"{'samples/s':<12}{rates}")
    if any(t.is_noisy for t in timed.timings):
        lines += [
            "",
            "noisy: half of the runs spread over more than 20 % of the median; close"
            " other programs, or raise --duration",
        ]
    ratio = timed.speedup
    if ratio is not None:
        words = ratio.verdict() if not ratio.is_clear else f"B is {ratio.verdict()} than A"
        lines += ["", f"{words} (A/B {ratio.ratio:.3f}, 95 % {ratio.low:.3f} to {ratio.high:.3f})"]
    return "\n".join(lines)
