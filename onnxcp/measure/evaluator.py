"""The loss of a plan: the drop of accuracy on data, or the change of outputs without data."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from onnxcp.data.roles import Inputs
from onnxcp.data.samples import Batching, Samples
from onnxcp.errors import UsageError
from onnxcp.measure.accuracy import Z95, Batches, Evaluation, changed
from onnxcp.measure.by_sample import Outputs, lay_out
from onnxcp.measure.evidence import is_coarse
from onnxcp.measure.judged_outputs import Judged
from onnxcp.measure.metric_table import METRICS
from onnxcp.measure.metrics import CLEAR_DROP, Metric
from onnxcp.measure.named_metric import metric_of
from onnxcp.options.budget import MAX_ERROR, BudgetOptions, parse_drop
from onnxcp.options.option import values_of
from onnxcp.plan import Budget, Score
from onnxcp.progress import Progress, silent
from onnxcp.results import AccuracyRecord, OutputRecord

OUTPUT_CHANGE = "output-change"
SCORING = 3  # how scores are computed; grows when kept ones are no longer what they would be
PROBED = 128  # samples


@dataclass(frozen=True, slots=True)
class Limits(BudgetOptions):
    """The budget of the options, with the user's metric if it is a function.

    Raises:
        UsageError: a value is invalid, options exclude each other, or a drop was probably meant
            in percent.
    """

    metric: str | Metric | None = None

    def __post_init__(self) -> None:
        BudgetOptions.__post_init__(self)
        row = METRICS.get(self.metric) if isinstance(self.metric, str) else self.metric
        if self.max_drop is not None and row is not None:
            self._refuse_slip(row)

    @classmethod
    def of(cls, options: BudgetOptions) -> "Limits":
        """Raises UsageError for a module:function that there is not, too."""
        return cls(**{**values_of(options), "metric": metric_of(options.metric)})

    @property
    def is_whole(self) -> bool:
        """Whether the metric is a function of the whole evaluation set."""
        return isinstance(self.metric, Metric) and self.metric.function is not None

    @property
    def metric_name(self) -> str | None:
        return self.metric.name if isinstance(self.metric, Metric) else self.metric

    def drop(self, metric: Metric, before: float) -> float:
        """The largest drop allowed, of a metric whose value for the original is `before`.

        Raises:
            UsageError: a share of it that was meant in percent, or a percentage of zero.
        """
        if self.max_drop is None:
            return parse_drop(metric.default_limit)[0]
        self._refuse_slip(metric)
        limit, is_relative = parse_drop(self.max_drop)
        if is_relative and before == 0:
            raise UsageError(
                f"<<max_drop={self.max_drop}>>: the original's {metric.name} is 0, of which "
                f"nothing is a part; give an absolute limit, as {metric.default_limit}"
            )
        return limit * (abs(before) if is_relative else 1.0)

    def _refuse_slip(self, metric: Metric) -> None:
        """Raises UsageError for half of a metric's range or more, which is a percentage."""
        assert self.max_drop is not None
        limit, is_relative = parse_drop(self.max_drop)
        if metric.is_share and not is_relative and limit >= CLEAR_DROP:
            percent = f"{limit:g}%" if limit >= 1 else "1%"
            meant = percent if metric.higher_is_better else metric.default_limit
            raise UsageError(
                f"<<max_drop={self.max_drop}>>: {metric.name} lies between 0 and 1, so this allows "
                f"nearly anything; did you mean {meant}?"
            )

    def refuse_without_data(self) -> None:
        """Raises UsageError if what is asked for can be measured on data only."""
        asked = [("max_drop", self.max_drop), ("metric", self.metric_name)]
        asked += [("output_name", name) for name in self.output_name]
        for option, value in asked:
            if value is not None:
                raise UsageError(
                    f"<<{option}={value}>>: needs <<data>>; give samples to measure it on"
                )


class Referee:
    """Evaluates runners of rewritten models against the original.

    `score` evaluates on the search set, `judge` on the evaluation set, which is the same if there
    are few samples.

    Raises:
        UsageError: the metric does not fit the outputs or samples, or a budget was probably meant
            in percent.
    """

    def __init__(
        self,
        original: Outputs,
        inputs: Inputs,
        limits: Limits,
        progress: Progress = silent,
        judged: Judged | None = None,
    ) -> None:
        self._inputs, self._original, self._limits = inputs, original, limits
        self._by_drop = inputs.samples is not None and limits.max_error is None
        if inputs.samples is None:
            limits.refuse_without_data()
        names, whole = None if judged is None else judged.names, limits.is_whole
        self._layout = lay_out(original, self._samples, self._batching, names, whole=whole)
        if self._by_drop:
            self._final = self._evaluation(inputs.samples, progress)
            self._search = self._final
            if inputs.is_held_out:
                self._search = self._evaluation(inputs.search_samples, progress)
            self._budget = limits.drop(self._final.metric, self._final.before)
        else:
            self._reference = list(self._layout.batches(original, self._samples))
            self._seen = self._reference
            if inputs.is_held_out:
                self._seen = list(self._layout.batches(original, self._searched))
            self._budget = limits.max_error or MAX_ERROR

    def _evaluation(self, samples: Samples | None, progress: Progress) -> Evaluation:
        assert samples is not None
        limits, layout = self._limits, self._layout
        return Evaluation(
            self._original, samples, limits.metric, layout, progress, limits.output_name
        )

    @property
    def budget(self) -> Budget:
        unit = self._final.metric.drop_name if self._by_drop else "relative output change"
        return Budget(self._budget, f"{unit} ≤ {self._budget:.4g}")

    @property
    def metric(self) -> str:
        return self._final.metric.name if self._by_drop else OUTPUT_CHANGE

    @property
    def identity(self) -> str:
        """All that a score depends on, except the model and the samples.

        Unique for a user's function, which may have changed since.
        """
        function = self._by_drop and self._final.metric.function is not None
        changing = os.urandom(16).hex() if function else ""
        budget = self._budget if self._is_coarse else None
        limits = (self._limits.output_name, budget)
        return f"{SCORING}|{self.metric}|{limits}|{self._layout}|{changing}"

    @property
    def _is_coarse(self) -> bool:
        return self._by_drop and is_coarse(self.metric, len(self._searched), self._budget)

    def score(self, candidate: Outputs) -> Score:
        """The loss of a candidate on the search set.

        `spread` is its standard error for other samples, 0 if the search set also evaluates. If
        right and wrong answers are too few to decide the budget, the change of outputs is limited
        as without data.
        """
        if not self._by_drop:
            changes = self._changes(candidate, self._seen, self._searched)
            change = max(changes.values())
            return Score(change, 0.0, change**2)
        held_out = self._inputs.is_held_out
        found = self._search.measure(candidate, interval=held_out)
        low, high = found.drop_ci if held_out else (0.0, 0.0)
        lost = found.drop
        if self._is_coarse:
            lost = max(lost, self._budget * math.sqrt(found.change) / MAX_ERROR)
        return Score(lost, (high - low) / (2 * Z95), found.change)

    def judge(self, candidate: Outputs) -> AccuracyRecord:
        """The loss of a candidate on the evaluation set, with the budget."""
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
                outputs=found.outputs,
                higher_is_better=self._final.metric.higher_is_better,
            )
        changes = self._changes(candidate, self._reference, self._samples)
        return AccuracyRecord(
            metric=OUTPUT_CHANGE,
            before=None,
            after=None,
            drop=max(changes.values()),
            drop_ci=None,
            samples=len(self._samples),
            budget=self._budget,
            data=self._samples.source,
            measured=False,
            outputs=tuple(OutputRecord(name, None, c) for name, c in changes.items()),
            higher_is_better=False,
        )

    def probe(self, count: int = PROBED) -> Callable[[Outputs], float]:
        """A function that returns the squared relative change of the output that changed most.

        It runs a candidate on a few search samples: this is cheap, and without the noise of right
        and wrong answers.
        """
        samples = self._searched.first(count)
        batches = list(samples.batches(self._layout.batching.step))

        def outputs(runner: Outputs) -> list[list[np.ndarray]]:
            return [self._layout.run(runner, feeds) for feeds in batches]

        reference = outputs(self._original)
        return lambda candidate: max(changed(reference, outputs(candidate)))

    def _changes(
        self, candidate: Outputs, reference: Batches, samples: Samples
    ) -> dict[str, float]:
        """‖candidate − reference‖ / ‖reference‖ of every output over the samples."""
        new = list(self._layout.batches(candidate, samples))
        squares = changed(reference, new)
        return {n: math.sqrt(c) for n, c in zip(self._layout.names, squares, strict=True)}

    @property
    def _searched(self) -> Samples:
        return self._inputs.search_samples or self._inputs.synthetic

    @property
    def _samples(self) -> Samples:
        return self._inputs.samples or self._inputs.synthetic

    @property
    def _batching(self) -> Batching:
        """Synthetic samples are whole feeds, of the shapes of the benchmark."""
        is_synthetic = self._inputs.samples is None
        return Batching(1, fixed=True) if is_synthetic else self._inputs.batching


def unjudged(record: AccuracyRecord) -> AccuracyRecord:
    """The same measurement without a budget."""
    return replace(record, budget=None)
