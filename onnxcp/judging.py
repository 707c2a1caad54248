"""What a plan loses: accuracy on data, or the change of the outputs where there is none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxcp.accuracy import Z95, Evaluation, choose_metric, squared_change
from onnxcp.errors import UsageError
from onnxcp.inputs import Inputs
from onnxcp.plan import Budget, Score
from onnxcp.progress import Progress, silent
from onnxcp.report.record import AccuracyRecord
from onnxcp.samples import Samples
from onnxcp.tensors import Feeds

Outputs = Callable[[Feeds], Sequence[np.ndarray]]

MAX_DROP, MAX_ERROR = "0.01", 0.05
OUTPUT_CHANGE = "output-change"
PROBED = 128  # samples


@dataclass(frozen=True, slots=True)
class Limits:
    """The budget as given: `max_drop` "0.01" absolute or "1%" of the original; or
    `max_error`, the relative L2 change of the outputs."""

    max_drop: str | None = None
    max_error: float | None = None
    metric: str | None = None

    def __post_init__(self) -> None:
        if self.max_drop is not None and self.max_error is not None:
            raise UsageError("--max-drop and --max-error exclude each other: give one budget")
        if self.max_error is not None and not 0 < self.max_error < 1:
            raise UsageError(f"--max-error {self.max_error}: give a number between 0 and 1")
        if self.max_error is not None and self.metric is not None:
            raise UsageError("--metric is what --max-drop bounds: leave it or --max-error out")
        if self.max_drop is not None:
            parse_drop(self.max_drop)

    @property
    def is_given(self) -> bool:
        return self.max_drop is not None or self.max_error is not None

    def refuse_without_data(self) -> None:
        """Raises UsageError if what is asked for can be measured on data only."""
        for option, value in (("--max-drop", self.max_drop), ("--metric", self.metric)):
            if value is not None:
                raise UsageError(f"{option} {value}: needs --data; give samples to measure it on")


class Referee:
    """Judges runners of rewritten models against the original: `score` for a search, `judge`
    in the end, on other samples where there are enough."""

    def __init__(
        self, original: Outputs, inputs: Inputs, limits: Limits, progress: Progress = silent
    ) -> None:
        self._inputs, self._original = inputs, original
        self._by_drop = inputs.samples is not None and limits.max_error is None
        if inputs.samples is None:
            limits.refuse_without_data()
        if self._by_drop:
            assert inputs.samples is not None and inputs.searched is not None
            metric = choose_metric(limits.metric, inputs.samples)
            batching = inputs.batching
            self._final = Evaluation(original, inputs.samples, metric, batching, progress)
            self._search = self._final
            if inputs.is_held_out:
                self._search = Evaluation(original, inputs.searched, metric, batching, progress)
            limit = parse_drop(limits.max_drop or MAX_DROP)
            before = float(self._final.before.mean())
            self._budget = limit[0] * (before if limit[1] else 1.0)
        else:
            self._reference = self._outputs(original, self._samples)
            self._seen = self._reference
            if inputs.is_held_out:
                self._seen = self._outputs(original, self._searched)
            self._budget = limits.max_error or MAX_ERROR

    @property
    def budget(self) -> Budget:
        unit = f"{self._final.metric} drop" if self._by_drop else "relative output change"
        return Budget(self._budget, f"{unit} ≤ {self._budget:.4g}")

    @property
    def metric(self) -> str:
        return self._final.metric if self._by_drop else OUTPUT_CHANGE

    def score(self, candidate: Outputs) -> Score:
        """What a candidate loses on the samples of the search. Its spread is the doubt about
        other samples: none where the same ones judge in the end."""
        if not self._by_drop:
            change = output_change(self._seen, self._outputs(candidate, self._searched))
            return Score(change, 0.0, change**2)
        found = self._search.measure(candidate)
        low, high = found.drop_ci if self._inputs.is_held_out else (0.0, 0.0)
        return Score(found.drop, (high - low) / (2 * Z95), found.change)

    def judge(self, candidate: Outputs) -> AccuracyRecord:
        """What a candidate loses, with the budget it is judged by."""
        if self._by_drop:
            found = self._final.measure(candidate)
            return AccuracyRecord(
                metric=found.metric,
                before=found.before,
                after=found.after,
                drop=found.drop,
                drop_ci=found.drop_ci,
                samples=found.samples,
                budget=self._budget,
                data=self._samples.source,
                measured=True,
            )
        return AccuracyRecord(
            metric=OUTPUT_CHANGE,
            before=None,
            after=None,
            drop=output_change(self._reference, self._outputs(candidate, self._samples)),
            drop_ci=None,
            samples=len(self._samples),
            budget=self._budget,
            data=self._samples.source,
            measured=False,
        )

    def probe(self) -> Callable[[Outputs], float]:
        """A function that gives the squared relative change of a candidate's outputs on a few
        samples of the search: cheap, and without the noise of right and wrong answers."""
        batching = self._inputs.batching
        samples = self._searched.first(PROBED)
        size = batching.size if self._inputs.searched is not None else 1
        batches = list(samples.batches(size))

        def outputs(runner: Outputs) -> list[np.ndarray]:
            return [batching.run(runner, feeds)[0] for feeds in batches]

        reference = outputs(self._original)
        return lambda candidate: squared_change(reference, outputs(candidate))

    def _outputs(self, runner: Outputs, samples: Samples) -> list[Sequence[np.ndarray]]:
        """All outputs, batch by batch; made-up samples are batches of their own."""
        if self._inputs.samples is None:
            return [runner(feeds) for feeds in samples.batches(1)]
        batching = self._inputs.batching
        return [batching.run(runner, feeds) for feeds in samples.batches(batching.size)]

    @property
    def _searched(self) -> Samples:
        return self._inputs.searched or self._inputs.synthetic

    @property
    def _samples(self) -> Samples:
        return self._inputs.samples or self._inputs.synthetic


def unjudged(record: AccuracyRecord) -> AccuracyRecord:
    """The same measurement where no budget was asked for."""
    return replace(record, budget=None)


def output_change(
    reference: Sequence[Sequence[np.ndarray]], candidate: Sequence[Sequence[np.ndarray]]
) -> float:
    """‖candidate − reference‖ / ‖reference‖ over all samples, of the output that moved most."""
    worst = 0.0
    for position in range(len(reference[0])):
        pairs = [
            (np.asarray(a[position], np.float64), np.asarray(b[position], np.float64))
            for a, b in zip(reference, candidate, strict=True)
        ]
        if any(a.shape != b.shape for a, b in pairs):
            return float("inf")
        moved = sum(float(np.square(a - b).sum()) for a, b in pairs)
        size = sum(float(np.square(a).sum()) for a, _ in pairs)
        change = np.sqrt(moved / size) if size else (0.0 if moved == 0 else np.inf)
        worst = max(worst, float(change) if np.isfinite(change) else float("inf"))
    return worst


def parse_drop(text: str) -> tuple[float, bool]:
    """`0.01` as (0.01, False), absolute; `1%` as (0.01, True), of the original's.

    Raises:
        UsageError: not a number, negative, or not finite.
    """
    relative = text.strip().endswith("%")
    try:
        value = float(text.strip().removesuffix("%")) / (100 if relative else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(
            f"--max-drop {text!r}: give an absolute drop as 0.01, a relative one as 1%"
        )
    return value, relative
