"""What chains are worth on a GPU: every network, precision and batch size, one JSON.

For time alone: chains have random weights, at the ranks of `RATIOS`, and each takes the place of
its layer only where it is measured faster there. Rows are printed to stderr as they are measured,
and after `--time-budget` no row is begun. `--provider cpu` tries the script on any machine.
"""

import argparse
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from light import light
from networks import DATA, MODELS

from onnxcp.data.roles import Sources, prepare
from onnxcp.errors import OnnxcpError
from onnxcp.forms import FORMS
from onnxcp.graph import io
from onnxcp.graph.sites import Site
from onnxcp.graph.splice import rewrite
from onnxcp.latency.candidates import Measured, candidate_ranks, chain_of, measure
from onnxcp.latency.tabulate import contexts
from onnxcp.measure.compare import time_models
from onnxcp.measure.stopwatch import stopwatch
from onnxcp.measure.timing import Timing, speedup
from onnxcp.plan import Choice
from onnxcp.runtime.environment import environment
from onnxcp.runtime.providers import Target
from onnxcp.runtime.survey import survey

NETWORKS = ("resnet18", "resnet50", "vgg19", "vdsr")
SIDE = 512  # of the images that VDSR reads
PRECISIONS = {"float32": {"use_tf32": "0"}, "tf32": {"use_tf32": "1"}, "float16": {}}
RATIOS = {"cp3": 1.0, "cp4": 1.0, "tucker2": 0.5, "svd": 0.5}  # rank over output channels
SECONDS, TURNS = 3.0, 2000  # of two whole models in turns


def network(name: str, batch: int, precision: str, data: Path) -> onnx.ModelProto:
    """ResNet-18 has its own weights, the others random ones."""
    made = onnx.load(data / MODELS[name]) if name in MODELS else light(name, batch)
    if precision == "float16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        made = convert_float_to_float16(made)
    return made


def choices(site: Site, block: int) -> list[Choice]:
    """Each form at the least candidate rank from its ratio of the output channels."""
    found = []
    for name, ratio in RATIOS.items():
        ranks = candidate_ranks(FORMS[name], site, block)
        found += [Choice(name, r) for r in ranks if r >= ratio * site.shape[0]][:1]
    return found


def shapes(name: str, batch: int) -> dict[str, tuple[int, ...]]:
    """Of the inputs that a network leaves open."""
    return {"input": (batch, 1, SIDE, SIDE)} if name == "vdsr" else {}


def measured(path: Path, name: str, batch: int, target: Target, folder: Path) -> dict[str, Any]:
    """One row: the model as it is, and with every chain that is faster."""
    model, given = io.load(path), shapes(name, batch)
    free = not given and any(spec.has_free_batch for spec in model.inputs)
    texts = tuple(f"{n}:{'x'.join(map(str, shape))}" for n, shape in given.items())
    fed = Sources(batch=batch if free else None, input_shape=texts)
    inputs = prepare(model.inputs, fed)
    sites, _ = survey(model, inputs.shapes, target, inputs.timed_feeds)
    wanted = {s.name: choices(s, target.block) for s in sites}
    wanted = {name: found for name, found in wanted.items() if found}
    times = measure(wanted, contexts(model, sites, inputs), target, stopwatch(target))
    best = {n: min(row.tried, key=lambda m: m.seconds) for n, row in times.items()}
    chosen = {n: m for n, m in best.items() if m.is_faster}
    rewritten = folder / "chains.onnx"
    write(model, sites, chosen, rewritten)
    both = (path, rewritten)
    before, after = time_models(
        both, inputs.timed_feeds, target, turns=TURNS, warmup=20, seconds=SECONDS
    )
    return {
        **figures(before, after),
        "layers": len(sites),
        "replaced": {n: f"{m.choice.form} {m.choice.rank}" for n, m in chosen.items()},
        "left_alone": {n: m.against.ratio for n, m in best.items() if n not in chosen},
        "left_as_no_rank_saves": sorted(s.name for s in sites if s.name not in wanted),
    }


def figures(before: Timing, after: Timing) -> dict[str, Any]:
    """Milliseconds, and the ratio with its 95 % interval."""
    found = speedup(before, after)
    return {
        "ms_before": 1e3 * before.median,
        "ms_after": 1e3 * after.median,
        "speedup": found.ratio,
        "ci": [found.low, found.high],
        "verdict": found.verdict(),
        "turns": len(before.seconds),
    }


def write(model: io.Model, sites: Sequence[Site], chosen: dict[str, Measured], path: Path) -> None:
    """The model with random chains."""
    rng = np.random.default_rng(0)
    chains = {s.name: chain_of(s, chosen[s.name].choice, rng) for s in sites if s.name in chosen}
    made = rewrite(model.proto, chains, sites, metadata={}, external=model.external)
    io.save(made.proto, path, made.external)


def rows(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Every network in every precision at one batch size, then at the next."""
    given = dict(text.split("=", 1) for text in options.provider_option)
    end = time.monotonic() + options.time_budget
    wanted = itertools.product(
        options.batch or (1, 8, 32), options.precision or PRECISIONS, options.model or NETWORKS
    )
    for batch, precision, name in wanted:
        if time.monotonic() > end:
            return
        settings = {**PRECISIONS[precision], "enable_cuda_graph": str(int(options.graph))}
        settings = settings if options.provider == "cuda" else {}
        target = Target.named(options.provider, options.threads, {**settings, **given})
        row = {"model": name, "precision": precision, "batch": batch, "graph": options.graph}
        path = folder / f"{name}.onnx"
        onnx.save(network(name, batch, precision, options.data), path)
        begun = time.perf_counter()
        try:
            row |= measured(path, name, batch, target, folder)
        except OnnxcpError as error:
            row["error"] = str(error)
        row["seconds"] = math.ceil(time.perf_counter() - begun)
        print(json.dumps(row), file=sys.stderr, flush=True)
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", choices=NETWORKS)
    parser.add_argument("--precision", action="append", choices=list(PRECISIONS))
    parser.add_argument("--batch", action="append", type=int)
    parser.add_argument("--graph", action="store_true", help="time replays of a CUDA graph")
    parser.add_argument("--provider", default="cuda")
    parser.add_argument("--provider-option", action="append", default=[], metavar="K=V")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--time-budget", type=float, default=math.inf, metavar="SECONDS")
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    where = environment(Target.named(options.provider, options.threads))
    with tempfile.TemporaryDirectory() as folder:
        found = list(rows(options, Path(folder)))
    print(json.dumps({"environment": where, "ratios": RATIOS, "rows": found}, indent=2))


if __name__ == "__main__":
    main()
