"""What borders between int8 and float cost: the times of every layer in five ways.

A layer is timed where it stands, with the nodes that fuse with it, between int8 borders: dense
in int8, its `cp3` chain in int8, the chain with its depthwise windows in float, the whole chain
in float, and dense in float. The five run in turns, on one thread, at batch 1. Prints JSON:
microseconds, and `over` the time of each over that of the chain in int8 in the same turns, with
its 95 % interval. Above 1 is slower.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from networks import DATA, MODELS

from onnxcp.data.roles import Sources, prepare
from onnxcp.graph import float_parts, io
from onnxcp.latency.candidates import all_choices, chain_of
from onnxcp.latency.context import Context
from onnxcp.latency.tabulate import contexts
from onnxcp.measure.compare import time_models
from onnxcp.measure.timing import speedup
from onnxcp.plan import Choice
from onnxcp.quantization.convert import for_time
from onnxcp.quantization.precision import INT8
from onnxcp.runtime.providers import Target
from onnxcp.runtime.survey import survey

TARGET = Target.named("cpu", 1)
RATIO, SECONDS, TURNS = 1.0, 3.0, 20_000  # of the output channels; of the five in turns


def layers(path: Path) -> Iterator[Context]:
    """Every distinct layer of a model that a chain can replace."""
    model, seen = io.load(path), set[str]()
    inputs = prepare(model.inputs, Sources())
    sites, _ = survey(model, inputs.shapes, TARGET, inputs.timed_feeds)
    for context in contexts(model, sites, inputs):
        if context.key not in seen and all_choices(context.site, ["cp3"], TARGET.block):
            seen.add(context.key)
            yield context


def ways(context: Context, choice: Choice, rng: np.random.Generator) -> dict[str, bytes]:
    """The layer's five models."""
    site, feeds = context.site, context.feeds(rng)
    chain = chain_of(site, choice, rng)
    roles = [stage.role for stage in chain]
    dense, chained = context.model(None), context.model(chain)
    wanted = {
        "chain int8": (chained, []),
        "dense int8": (dense, []),
        "windows float": (chained, float_parts.globs(site.name, float_parts.WINDOWS, roles)),
        "chain float": (chained, float_parts.globs(site.name, float_parts.CHAIN, roles)),
        "dense float": (dense, [site.name]),
    }
    return {
        name: for_time(model, INT8, feeds, site.name, floats, is_part=True)
        for name, (model, floats) in wanted.items()
    }


def measured(context: Context, ratio: float, seconds: float) -> dict[str, Any]:
    """One layer's times, at the candidate rank nearest a multiple of its channels."""
    site, rng = context.site, np.random.default_rng(0)
    choices = all_choices(site, ["cp3"], TARGET.block)
    choice = min(choices, key=lambda c: abs(c.rank - ratio * site.shape[0]))
    feeds, models = context.feeds(rng), ways(context, choice, rng)
    given = (list(models.values()), feeds, TARGET)
    timings = time_models(*given, turns=TURNS, warmup=10, seconds=seconds)
    times = dict(zip(models, timings, strict=True))
    ratios = {name: speedup(timing, times["chain int8"]) for name, timing in times.items()}
    return {
        "layer": site.name,
        "shape": site.shape,
        "image": site.image,
        "rank": choice.rank,
        "turns": len(timings[0].seconds),
        "microseconds": {name: 1e6 * timing.median for name, timing in times.items()},
        "over": {name: (r.ratio, r.low, r.high) for name, r in ratios.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", choices=MODELS, help="repeatable")
    parser.add_argument("--ratio", type=float, default=RATIO, help="rank over output channels")
    parser.add_argument("--data", type=Path, default=DATA, help="default: $ONNXCP_DATA")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of turns, a layer")
    options = parser.parse_args()
    rows = []
    for name in options.model or ("resnet20", "resnet18"):
        for context in layers(options.data / MODELS[name]):
            rows.append({"model": name, **measured(context, options.ratio, options.seconds)})
            print(json.dumps(rows[-1]), file=sys.stderr)
    print(json.dumps({"threads": 1, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
