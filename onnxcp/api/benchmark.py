"""`onnxcp.benchmark`: how fast one model is, or which of two is faster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from onnxcp.api.keywords import grouped, single, verb
from onnxcp.api.models import ModelLike
from onnxcp.api.settings import data_of
from onnxcp.api.shown import Shown
from onnxcp.api.staging import Staging, staging
from onnxcp.api.types import Benchmark
from onnxcp.data.roles import Sources
from onnxcp.errors import UsageError, as_keywords
from onnxcp.measure import baseline as earlier
from onnxcp.measure.baseline import Change, of_two, parse_limit
from onnxcp.measure.benchmark import Timed, batch_sizes, run
from onnxcp.options.duration import DurationOptions
from onnxcp.options.run import RunOptions
from onnxcp.options.target import TargetOptions
from onnxcp.progress import Progress, silent
from onnxcp.quantization.precision import FLOAT32
from onnxcp.report import Page
from onnxcp.report.benchmark import page, times, to_text
from onnxcp.runtime.providers import Target


@dataclass(frozen=True, slots=True)
class BenchmarkResult(Shown, Timed):
    """One or two models, timed in turns at every batch size. `changes` are since the `baseline`,
    `limit` is by how much the model may be slower, None where that was not asked."""

    changes: tuple[Change, ...] = ()
    limit: float | None = None

    @property
    def speedup(self) -> float | None:
        """How many times faster the second model is at the first batch size; None for one model
        alone."""
        found = self.runs[0].speedup
        return None if found is None else found.ratio

    @property
    def speedup_ci(self) -> tuple[float, float] | None:
        """Its 95 % interval."""
        found = self.runs[0].speedup
        return None if found is None else (found.low, found.high)

    @property
    def milliseconds(self) -> tuple[Mapping[str, float], ...]:
        """Of each model at the first batch size: mean, min, p50, p90, p95, p99 and std."""
        return tuple(timing.milliseconds() for timing in self.runs[0].timings)

    @property
    def slower(self) -> tuple[Change, ...]:
        """The batch sizes at which the model is slower than `fail_if_slower` allows."""
        if self.limit is None:
            return ()
        limit, changes = self.limit, self.changes or of_two(self)
        return tuple(change for change in changes if change.exceeds(limit))

    @property
    def ok(self) -> bool:
        """Whether nothing is slower than it may be."""
        return not self.slower

    @property
    def document(self) -> str:
        """The figures as a file holds them, which `benchmark(baseline=…)` compares with."""
        return self.to_json()

    def to_text(self) -> str:
        """What the command prints."""
        return as_keywords(to_text(self, self.changes))

    def to_csv(self) -> str:
        """The time of every run."""
        return times(self, ".csv")

    def _page(self) -> Page:
        return page(self, self.changes)


@verb(DurationOptions)
def benchmark(
    model: ModelLike,
    other: ModelLike | None = None,
    *,
    progress: Progress = silent,
    **options: Unpack[Benchmark],
) -> BenchmarkResult:
    """Time one model, or two in turns with the ratio and its 95 % interval.

    Args:
        model: a path, an onnx.ModelProto or an onnx_graphsurgeon.Graph.
        other: a model to time in turns with it.
        data, calibration: samples, as `onnxcp.optimize` takes them.
        batch: the size of a dynamic batch, or several.
        precision: times the model in turns with itself in float16 or int8; of two, both so.
        baseline: an earlier result, or the path of its JSON, to compare with.
        fail_if_slower: 0.05 or "5%": by how much the model may be slower than the baseline, else
            the second than the first; `ok` says whether it holds.

    Raises:
        TypeError: an unknown keyword, with the nearest that there is.
        TooBusy: other work on the machine left nothing to be told of speed.
        OnnxcpError: unusable models, samples or keywords, which the message names.
    """
    with staging() as staged:
        given: dict[str, Any] = {**options}
        where = grouped(TargetOptions, {**given, "iterations": None})
        length, asked = grouped(DurationOptions, given), where.precision or FLOAT32
        seed = grouped(RunOptions, given).seed
        paths = [staged.model(model)]
        paths += [] if other is None else [staged.model(other, "other")]
        batches = batch_sizes(_batches(given.pop("batch", None)))
        before = _baseline(given.get("baseline"), staged)
        is_compared = len(paths) == 2 or asked != FLOAT32 or before is not None
        limit = _limit(given.get("fail_if_slower"), is_compared=is_compared)
        timed = run(
            paths,
            Sources.of(data_of(given, staged, paths[0]), seed),
            Target.of(where),
            length,
            progress,
            batches,
            precision=asked,
            raise_opset=where.raise_opset,
        )
        changes = () if before is None else tuple(earlier.since(before, timed, "baseline"))
        found = BenchmarkResult(
            timed.models,
            timed.runs,
            timed.target,
            timed.environment,
            timed.precision,
            timed.precisions,
            changes,
            limit,
        )
        return staged.as_given(found)


def _batches(given: int | str | Sequence[int] | None) -> str | None:
    """Sizes as the command has them."""
    if given is None or isinstance(given, str):
        return given
    return ",".join(map(str, given)) if isinstance(given, Sequence) else str(given)


def _baseline(given: Any, staged: Staging) -> dict[str, Any] | None:
    """The document of an earlier benchmark. Raises TableError for none."""
    path = single("baseline", Path, staged.document(given, "baseline"))
    return None if path is None else earlier.from_file(path)


def _limit(given: float | str | None, *, is_compared: bool) -> float | None:
    """By how much a model may be slower. Raises UsageError for no such share."""
    if given is not None and not is_compared:
        raise UsageError(
            f"<<fail_if_slower={given}>>: than what? give a second model, or <<baseline>>"
        )
    return None if given is None else parse_limit(str(given))
