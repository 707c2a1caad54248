"""Whether `onnxcp benchmark` tells the truth, on a quiet machine or under load: one JSON.

- plain: a loop that only runs the same session and reads the clock; the medians should be
  within 3 %. Where the machine is too busy for a time of one model, that is what is said.
- same: a model against itself. Right is that there is no difference, within 5 % of 1.
- slower: a model against itself with work added, some 10 % of its time, by how much told in
  advance by processor times. Right is that it is slower, within 5 % of the true ratio.
- several: the same session run so many times against once, whose ratio is known without any
  clock. Right is a ratio within 5 % of it.

A refusal to tell is right too: `benchmark` ends with 1 there. With --load N, between none and N
processes keep the machine busy, another number every half second.
"""

import argparse
import json
import multiprocessing
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from networks import DATA, MODELS

from onnxcp.data.roles import Sources, prepare
from onnxcp.errors import TooBusy
from onnxcp.graph import io
from onnxcp.measure import baseline, benchmark
from onnxcp.measure.stopwatch import stopwatch
from onnxcp.measure.timing import disturbance, take_turns
from onnxcp.options.duration import DurationOptions
from onnxcp.progress import silent
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner

WANTED, MOST_ADDED = 0.10, 64  # of the model's time; layers
LIMIT = 0.05  # --fail-if-slower; and how far a ratio may be from the truth
SEVERAL, SECONDS = 8, 3.0
CHANGES = 0.5  # seconds until another number of processes is busy


@dataclass(frozen=True, slots=True)
class Answer:
    """What one comparison said. `ratio` is None for a refusal."""

    true: float
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str = ""
    disturbed: int = 0
    turns: int = 0
    by_processor: bool = False

    @property
    def is_right(self) -> bool:
        """Whether it is a refusal or near the truth, and on the right side of 1."""
        if self.ratio is None or self.low is None or self.high is None:
            return True
        if "faster" in self.verdict or "slower" in self.verdict:
            is_same_side = (self.ratio > 1) == (self.true > 1) and self.true != 1
            return is_same_side and abs(self.ratio / self.true - 1) <= LIMIT
        if "too noisy" in self.verdict:
            return True
        return abs(self.ratio / self.true - 1) <= LIMIT


def asked(true: float, question: Callable[[], benchmark.Run]) -> Answer:
    """The answer to a question whose true ratio is known."""
    try:
        run = question()
    except TooBusy as error:
        return Answer(true, verdict=str(error))
    found, other = run.speedup, disturbance(*run.timings)
    assert found is not None
    figures = (found.ratio, found.low, found.high, found.verdict())
    return Answer(true, *figures, other.disturbed, other.turns, other.by_processor)


def compared(paths: Sequence[Path], target: Target) -> benchmark.Run:
    """What `onnxcp benchmark` does with these models."""
    length = DurationOptions(warmup=10, iterations=100, duration=SECONDS)
    return benchmark.run(paths, Sources(), target, length, silent).runs[0]


def several(path: Path, target: Target) -> benchmark.Run:
    """A session run several times against once."""
    inputs = prepare(io.load(path).inputs, Sources())
    once = open_runner(path, target).bound(inputs.timed_feeds)

    def often() -> None:
        for _ in range(SEVERAL):
            once()

    watch = stopwatch(target)
    timings = take_turns([often, once], watch, turns=10**6, seconds=SECONDS)
    return benchmark.Run(1, dict(inputs.shapes), timings)


def plain(path: Path, target: Target, rounds: int) -> list[float | None]:
    """Medians of plain loops over those of `benchmark`'s, on one session, less 1."""
    feeds = prepare(io.load(path).inputs, Sources()).timed_feeds
    runner = open_runner(path, target)
    session, found = runner.session, list[float | None]()
    for _ in range(rounds):
        try:
            watch = stopwatch(target)
            (ours,) = take_turns([runner.bound(feeds)], watch, turns=10**6, seconds=SECONDS)
        except TooBusy:
            found.append(None)
            continue
        taken, end = list[float](), time.perf_counter() + SECONDS
        while time.perf_counter() < end:
            start = time.perf_counter()
            session.run(None, feeds)
            taken.append(time.perf_counter() - start)
        found.append(statistics.median(taken) / ours.median - 1)
    return found


def slowed(source: Path, target: Path, layers: int) -> None:
    """The model with that many 1×1 convolutions, each the identity, before its last
    convolution of one input feature map."""
    model = onnx.load(str(source))
    node = [n for n in model.graph.node if n.op_type == "Conv"][-1]
    stored = {t.name: t for t in model.graph.initializer}
    channels = stored[node.input[1]].dims[1]
    eye = np.eye(channels, dtype=np.float32).reshape(channels, channels, 1, 1)
    model.graph.initializer.append(onnx.numpy_helper.from_array(eye, "added.weight"))
    name, added = node.input[0], []
    for number in range(layers):
        added.append(onnx.helper.make_node("Conv", [name, "added.weight"], [f"added.{number}"]))
        name = f"added.{number}"
    node.input[0] = name
    position = list(model.graph.node).index(node)
    for new in reversed(added):
        model.graph.node.insert(position, new)
    onnx.save(model, str(target))


def processor_ratio(old: Path, new: Path, seconds: float) -> float:
    """Of one model's time to another's, on one thread, by a long look at processor times."""
    target = Target.named("cpu", 1)
    feeds = prepare(io.load(old).inputs, Sources()).timed_feeds
    runs = [open_runner(path, target).bound(feeds) for path in (old, new)]
    used, end = [list[float](), list[float]()], time.perf_counter() + seconds
    while time.perf_counter() < end or len(used[0]) < 50:
        for which in (0, 1):
            start = time.thread_time()
            runs[which]()
            used[which].append(time.thread_time() - start)
    first, last = (np.percentile(times, 25) for times in used)
    return float(first / last)


def slower_by_a_tenth(source: Path, folder: Path) -> tuple[Path, float]:
    """A model that takes about a tenth longer, and the ratio of the first's time to its."""
    target = folder / "slower.onnx"
    layers, by = 1, 0.0
    while layers <= MOST_ADDED:
        slowed(source, target, layers)
        by = processor_ratio(target, source, 6.0) - 1
        if by >= WANTED:
            break
        layers += max(1, int(layers * (WANTED - by) / max(by, 0.01)))
    return target, processor_ratio(source, target, 20.0)


@contextmanager
def load(most: int, seed: int) -> Iterator[None]:
    """Up to so many busy processes, another number every half second, till the block ends."""
    ended = multiprocessing.Event()
    args = [(number, most, seed, ended) for number in range(most)]
    busy = [multiprocessing.Process(target=_busy, args=a, daemon=True) for a in args]
    for process in busy:
        process.start()
    try:
        yield
    finally:
        ended.set()
        for process in busy:
            process.join()


def _busy(number: int, most: int, seed: int, ended: Any) -> None:
    """Compute while the number drawn for this half second is larger than the process's own."""
    while not ended.is_set():
        slot = int(time.time() / CHANGES)
        if random.Random(f"{seed} {slot}").randint(0, most) > number:
            sum(range(20_000))
        else:
            time.sleep(0.02)


def measure(name: str, source: Path, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One network's row."""
    copy, target = folder / "copy.onnx", Target.named("cpu", options.threads)
    shutil.copyfile(source, copy)
    slow, ratio = slower_by_a_tenth(source, folder)
    print(f"{name}: slower by {1 / ratio - 1:.1%}", file=sys.stderr)
    questions = {
        "same": (1.0, lambda: compared([source, copy], target)),
        "slower": (ratio, lambda: compared([source, slow], target)),
        "several": (float(SEVERAL), lambda: several(source, target)),
    }
    questions = {kind: questions[kind] for kind in options.ask or questions}
    answers: dict[str, list[Answer]] = {kind: [] for kind in questions}
    for round_ in range(options.rounds):
        with load(options.load, round_):
            for kind, (true, question) in questions.items():
                answers[kind].append(asked(true, question))
        last = {kind: asdict(found[-1]) for kind, found in answers.items()}
        print(f"{name}: round {round_ + 1} of {options.rounds}: {last}", file=sys.stderr)
    misses = [] if options.load else plain(source, target, 5)
    return {
        "model": name,
        "threads": target.count,
        "load": options.load,
        "rounds": options.rounds,
        "plain_over_ours": misses,
        **{kind: _summary(found) for kind, found in answers.items() if found},
    }


def _summary(found: Sequence[Answer]) -> dict[str, Any]:
    told = [a for a in found if a.ratio is not None]
    failed = [a for a in told if a.low is not None and _fails(a)]
    return {
        "true": found[0].true,
        "right_or_refused": sum(a.is_right for a in found),
        "of": len(found),
        "refused": len(found) - len(told),
        "clear": sum("faster" in a.verdict or "slower" in a.verdict for a in told),
        "failed_at_5_percent": len(failed),
        "by_processor": sum(a.by_processor for a in told),
        "ratios": [a.ratio for a in told],
        "answers": [asdict(a) for a in found],
    }


def _fails(answer: Answer) -> bool:
    """Whether --fail-if-slower 5% ends with 1."""
    assert answer.ratio is not None and answer.low is not None and answer.high is not None
    slower = (1 / answer.ratio - 1, 1 / answer.high - 1, 1 / answer.low - 1)
    return baseline.Change(1, *slower).exceeds(LIMIT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", choices=list(MODELS))
    parser.add_argument("--ask", action="append", choices=["same", "slower", "several"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--load", type=int, default=0, help="busy processes at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            measure(name, options.data / MODELS[name], options, Path(folder))
            for name in options.model or ("resnet20", "resnet18")
        ]
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
