"""What int8 brings, alone and on chains: accuracy and speed of every combination.

A network is taken as it is, and with `cp3` chains at ranks of its output channels and of
twice as many in place of all 3×3 kernels but the first, made by `onnxcp optimize --rank`.
Each of these is judged in float, in int8, and in int8 with the chains' windows left in
float. At most 128 of the samples that calibrate the fits also give the ranges of activations.
Each model runs in turns with the float original alone, on one thread, at batch 1: with many
models in turns each would find the caches cold. Prints JSON; `speedup` and `drop` are against
the original, with 95 % intervals.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from networks import DATA, MODELS, run, sources

from onnxcp.data.roles import Inputs, Sources, prepare
from onnxcp.data.samples import Batching
from onnxcp.graph import io
from onnxcp.measure import metrics
from onnxcp.measure.accuracy import Evaluation
from onnxcp.measure.stopwatch import stopwatch
from onnxcp.measure.timing import speedup, take_turns
from onnxcp.quantization.scheme import METHODS, Scheme, fastest
from onnxcp.quantization.static import prepare as prepare_int8
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner

TARGET = Target.named("cpu", 1)
SITES = {
    "resnet20": ("--exclude", "conv1"),
    "resnet56": ("--exclude", "conv1"),
    "resnet18": ("--include", "layer*.conv?"),
}
RATIOS = (1.0, 2.0)  # of the output channels
WINDOWS = ("*/cp/window",)  # the depthwise stages
CALIBRATING, BATCH = 128, 8  # samples for ranges
SECONDS, TURNS = 5.0, 10_000  # of two models in turns


@dataclass(frozen=True, slots=True)
class Variant:
    """One model of a network."""

    name: str
    path: Path
    nodes: dict[str, int]  # by type
    seconds: float = 0.0  # that quantizing took


def chained(name: str, ratio: float, options: argparse.Namespace, folder: Path) -> Path:
    """The network with chains at one ratio."""
    path = folder / f"{ratio}c.onnx"
    command = [sys.executable, "-m", "onnxcp", "optimize", str(options.data / MODELS[name])]
    command += ["-o", str(path), "--quiet", "--form", "cp3", "--rank", f"*={ratio}c"]
    command += [*SITES[name], *sources(name, options.data, folder), "--threads", "1"]
    command += ["--jobs", str(options.jobs), "--iterations", "10"]
    command += ["--cache", str(options.cache)] if options.cache else []
    run(command)
    return path


def variants(
    name: str, inputs: Inputs, scheme: Scheme, options: argparse.Namespace, folder: Path
) -> Iterator[Variant]:
    """The float original first."""
    original = options.data / MODELS[name]
    yield Variant("float", original, counted(io.load(original).proto))
    yield in_int8("int8", original, inputs, scheme, folder)
    for ratio in RATIOS:
        path, label = chained(name, ratio, options, folder), f"cp3 {ratio:g}C"
        windows = replace(scheme, floats=WINDOWS)
        yield Variant(label, path, counted(io.load(path).proto))
        yield in_int8(f"{label} int8", path, inputs, scheme, folder)
        yield in_int8(f"{label} int8, windows float", path, inputs, windows, folder)


def in_int8(name: str, source: Path, inputs: Inputs, scheme: Scheme, folder: Path) -> Variant:
    """The int8 model of a float one."""
    start, path = time.perf_counter(), folder / f"{name}.onnx"
    assert inputs.calibration is not None
    step = max(1, len(inputs.calibration) // CALIBRATING)
    samples = inputs.calibration.split(step)[0].first(CALIBRATING)
    batching = Batching(BATCH, fixed=False)
    proto = io.load(source).proto
    made = prepare_int8(proto, samples, batching, scheme, where=str(source)).quantized()
    io.save(made, path)
    return Variant(name, path, counted(made), time.perf_counter() - start)


def counted(proto: onnx.ModelProto) -> dict[str, int]:
    return dict(Counter(node.op_type for node in proto.graph.node))


def rows(found: Sequence[Variant], inputs: Inputs, seconds: float) -> Iterator[dict[str, Any]]:
    """Accuracy and speed of every model; the first is the one to compare with."""
    runners = [open_runner(one.path, TARGET) for one in found]
    assert inputs.samples is not None
    judge = Evaluation(runners[0], inputs.samples, metrics.TOP1, inputs.batching)
    original, *runs = [runner.bound(inputs.timed_feeds) for runner in (runners[0], *runners)]
    for one, runner, ran in zip(found, runners, runs, strict=True):
        pair = (original, ran)
        old, new = take_turns(pair, stopwatch(TARGET), turns=TURNS, warmup=10, seconds=seconds)
        measured, ratio = judge.measure(runner), speedup(old, new)
        yield {
            "variant": one.name,
            "top1": measured.after,
            "drop": measured.drop,
            "drop_ci": measured.drop_ci,
            "ms": 1e3 * new.median,
            "original_ms": 1e3 * old.median,
            "speedup": ratio.ratio,
            "speedup_ci": (ratio.low, ratio.high),
            "quantize_seconds": one.seconds,
            "bytes": one.path.stat().st_size,
            "nodes": one.nodes,
        }


def measure(
    name: str, scheme: Scheme, options: argparse.Namespace, folder: Path
) -> Iterator[dict[str, Any]]:
    """All rows of one network."""
    words = sources(name, options.data, folder)
    given = dict(zip(words[::2], words[1::2], strict=True))
    asked = Sources(
        data=(given["--data"],),
        calibration=(given["--calibration"],),
        preprocess=given["--preprocess"],
    )
    inputs = prepare(io.load(options.data / MODELS[name]).inputs, asked)
    assert inputs.samples is not None
    found = list(variants(name, inputs, scheme, options, folder))
    for row in rows(found, inputs, options.seconds):
        yield {"model": name, "samples": len(inputs.samples), **row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", choices=SITES, help="repeatable")
    parser.add_argument("--method", choices=METHODS, default=Scheme().method, help="of ranges")
    parser.add_argument("--percentile", type=float, default=Scheme().percentile)
    yes_or_no = argparse.BooleanOptionalAction
    parser.add_argument("--equalise", action=yes_or_no, default=True, help="chains, before")
    parser.add_argument("--correct-bias", action=yes_or_no, default=True, help="of all products")
    parser.add_argument("--data", type=Path, default=DATA, help="default: $ONNXCP_DATA")
    parser.add_argument("--cache", type=Path, help="keeps fits; default: as optimize")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of turns, a model")
    options = parser.parse_args()
    scheme = replace(
        fastest(),
        method=options.method,
        percentile=options.percentile,
        equalise=options.equalise,
        correct_bias=options.correct_bias,
    )
    made = []
    for name in options.model or SITES:
        with tempfile.TemporaryDirectory() as folder:
            for row in measure(name, scheme, options, Path(folder)):
                print(json.dumps(row), file=sys.stderr)
                made.append(row)
    print(json.dumps({"threads": 1, "scheme": asdict(scheme), "rows": made}, indent=2))


if __name__ == "__main__":
    main()
