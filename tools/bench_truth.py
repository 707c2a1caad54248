"""Whether `onnxcp benchmark` tells the truth: three questions, one JSON.

- plain: a loop that only runs the same session and reads the clock; the medians should be
  within 3 %.
- same: a model against a copy of its file; most runs should say that there is no difference.
- slower: a model against itself with work added, some 10 % of its time; most runs should say
  which is slower.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from networks import DATA, MODELS

from onnxcp import baseline, files, timing
from onnxcp.benchmark import speedup, take_turns
from onnxcp.inputs import Sources, prepare
from onnxcp.progress import silent
from onnxcp.providers import Target
from onnxcp.sessions import open_runner

TARGET = Target.named("cpu", 1)
LENGTH = timing.Length(warmup=10, iterations=100, seconds=3.0)  # what the command takes
WANTED, MOST_ADDED = 0.10, 64  # of the model's time; layers
LIMIT = 0.05  # --fail-if-slower


def compared(paths: Sequence[Path]) -> timing.Timed:
    """What `onnxcp benchmark` does with these models."""
    return timing.run(paths, Sources(), TARGET, LENGTH, silent)


def plain(path: Path, rounds: int) -> list[float]:
    """Medians of plain loops over those of `benchmark`'s, on one session, less 1."""
    feeds = prepare(files.load(path).inputs, Sources()).timed
    runner = open_runner(path, TARGET)
    session, found = runner.session, []
    for _ in range(rounds):
        (ours,) = take_turns([runner.bound(feeds)], time.perf_counter, turns=10**6, seconds=3.0)
        taken, end = list[float](), time.perf_counter() + 3.0
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


def slower_by_a_tenth(source: Path, folder: Path) -> tuple[Path, float]:
    """A model that takes about a tenth longer, and by how much it does in a long look."""
    target = folder / "slower.onnx"
    layers, found = 1, 0.0
    while layers <= MOST_ADDED:
        slowed(source, target, layers)
        feeds = prepare(files.load(source).inputs, Sources()).timed
        runs = [open_runner(path, TARGET).bound(feeds) for path in (target, source)]
        found = speedup(*take_turns(runs, time.perf_counter, turns=10**6, seconds=6.0)).ratio - 1
        if found >= WANTED:
            break
        layers += max(1, int(layers * (WANTED - found) / max(found, 0.01)))
    return target, found


def measure(name: str, source: Path, rounds: int, folder: Path) -> dict[str, Any]:
    """One network's row."""
    copy = folder / "copy.onnx"
    shutil.copyfile(source, copy)
    slow, by = slower_by_a_tenth(source, folder)
    print(f"{name}: slower by {by:.1%}", file=sys.stderr)
    misses = plain(source, 5)
    same = [compared([source, copy]).runs[0].speedup for _ in range(rounds)]
    after = [compared([source, slow]) for _ in range(rounds)]
    found = [timed.runs[0].speedup for timed in after]
    return {
        "model": name,
        "plain_over_ours": misses,
        "rounds": rounds,
        "same_without_difference": sum(s is not None and not s.is_clear for s in same),
        "same_ratios": [s.ratio for s in same if s is not None],
        "slower_by": by,
        "slower_seen": sum(s is not None and s.is_clear and s.ratio < 1 for s in found),
        "slower_failed_at_5_percent": sum(
            any(c.exceeds(LIMIT) for c in baseline.of_two(timed)) for timed in after
        ),
        "slower_ratios": [s.ratio for s in found if s is not None],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", choices=list(MODELS))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            measure(name, options.data / MODELS[name], options.rounds, Path(folder))
            for name in options.model or ("resnet20", "resnet18")
        ]
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
