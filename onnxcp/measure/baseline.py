"""The comparison of a benchmark with an earlier one: whether the model has become slower.

For two models the speed-ups are compared, which hardly depend on the machine's state. For one model
the times are compared, which is only meaningful on the same machine.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxcp.errors import MALFORMED, TableError, UsageError
from onnxcp.measure.benchmark import Run, Timed
from onnxcp.measure.timing import NO_DIFFERENCE, Speedup, median_interval
from onnxcp.quantization.precision import FLOAT32

VERSION = 1  # of the file
SAME = ("provider", "threads", "provider_options")  # of two benchmarks that can be compared
SAME_MACHINE = ("cpu", "gpu")


@dataclass(frozen=True, slots=True)
class Change:
    """How much slower one batch size has become: 0.1 is 10 %, negative is faster.

    The 95 % interval is conservative: it combines the ends of both intervals.
    """

    batch: int
    slower: float
    low: float
    high: float

    def exceeds(self, limit: float) -> bool:
        """Whether it exceeds a limit, and its interval excludes no change."""
        return self.slower > limit and self.low > NO_DIFFERENCE

    @property
    def words(self) -> str:
        """The change of the time and its interval, in the direction that it has."""
        if self.low > NO_DIFFERENCE or self.high < -NO_DIFFERENCE:
            way = "slower" if self.low > 0 else "faster"
            ends = sorted((abs(self.low), abs(self.high)))
            least, most = (f"{100 * end:.1f}" for end in ends)
            return f"{abs(self.slower):.1%} {way} than before (95 % {least} to {most})"
        return (
            f"no significant difference to before (95 % {max(-self.low, 0.0):.1%} faster to "
            f"{max(self.high, 0.0):.1%} slower)"
        )


def parse_limit(text: str) -> float:
    """`5%` or `0.05` as 0.05.

    Raises:
        UsageError: it is not a number from 0 up to but without 10.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*", text)
    value = float(found.group(1)) / (100 if found.group(2) else 1) if found else -1.0
    if not 0 <= value < 10:
        raise UsageError(f"<<fail_if_slower={text!r}>>: write it as 5% or 0.05")
    return value


def of_two(timed: Timed) -> list[Change]:
    """How much slower the second model is than the first."""
    return [
        _ratio(run.batch, Speedup(1.0, 1.0, 1.0), run.speedup) for run in timed.runs if run.speedup
    ]


def since(document: Mapping[str, Any], timed: Timed, where: str) -> list[Change]:
    """How much slower the model, or the second of two over the first, is than in an earlier
    benchmark.

    Raises:
        UsageError: the two benchmarks cannot be compared; names the difference.
        TableError: the document is damaged.
    """
    try:
        _refuse_unlike(document, timed, where)
        earlier = {int(run["batch"]): run for run in document["runs"]}
        missing = [run.batch for run in timed.runs if run.batch not in earlier]
        if missing:
            raise UsageError(
                f"{where}: has no batch of {missing[0]}, only {', '.join(map(str, earlier))}; "
                "benchmark the same batch sizes"
            )
        return [_change(earlier[run.batch], run) for run in timed.runs]
    except MALFORMED as error:
        raise TableError(f"{where}: a damaged benchmark; write it again") from error


def from_file(path: Path) -> dict[str, Any]:
    """The JSON report of an earlier `benchmark`.

    Raises:
        TableError: the file does not exist, or is not a report of `benchmark`.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if document["benchmark_version"] != VERSION:
            raise KeyError
    except OSError as error:
        raise TableError(
            f"{path}: {error.strerror}; give a file that onnxcp benchmark <<report>> wrote"
        ) from error
    except MALFORMED as error:
        raise TableError(
            f"{path}: not a benchmark, or of another version; write it with onnxcp benchmark "
            "<<report>>"
        ) from error
    return document


def _refuse_unlike(document: Mapping[str, Any], timed: Timed, where: str) -> None:
    if len(document["models"]) != len(timed.models):
        raise UsageError(
            f"{where}: timed {len(document['models'])} models, this benchmark {len(timed.models)}; "
            "give as many"
        )
    then, now = document["environment"], timed.environment
    pairs = {"provider": timed.target.name, "threads": timed.target.count}
    pairs["provider_options"] = timed.target.settings
    told = [f"{n} {document[n]}, here {pairs[n]}" for n in SAME if document[n] != pairs[n]]
    precision = document.get("precision", FLOAT32)  # those of earlier versions say nothing
    if precision != timed.precision:
        told.append(f"precision {precision}, here {timed.precision}")
    if len(timed.models) == 1:
        told += [
            f"{n} {then.get(n)}, here {now.get(n)}"
            for n in SAME_MACHINE
            if then.get(n) != now.get(n)
        ]
    if told:
        raise UsageError(
            f"{where}: was measured otherwise ({'; '.join(told)}); measure it again here, or "
            "benchmark two models, whose speed-up is compared across machines"
        )


def _change(earlier: Mapping[str, Any], run: Run) -> Change:
    found = run.speedup
    if found is not None:
        then = earlier["speedup"]
        return _ratio(run.batch, Speedup(then["ratio"], *then["ci"]), found)
    (now,), then = run.timings, earlier["models"][0]
    low, high = (1e3 * seconds for seconds in median_interval(now))
    first, last = then["p50_ci"]
    middle = float(then["milliseconds"]["p50"])
    return Change(run.batch, 1e3 * now.median / middle - 1, low / last - 1, high / first - 1)


def _ratio(batch: int, then: Speedup, now: Speedup) -> Change:
    return Change(
        batch, then.ratio / now.ratio - 1, then.low / now.high - 1, then.high / now.low - 1
    )
