"""What chains are worth on a GPU: every network, precision and batch size, one JSON.

For time alone: chains have random weights, at a rank of as many terms as output channels, and
each takes the place of its layer only where it is measured faster there. `--provider cpu`
tries the script on any machine.
"""

import argparse
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

from onnxcp import files
from onnxcp.benchmark import Timing, speedup, take_turns
from onnxcp.environment import environment
from onnxcp.errors import OnnxcpError
from onnxcp.forms import FORMS
from onnxcp.inputs import Sources, prepare
from onnxcp.latency import Measured, candidate_ranks, chain_of, measure
from onnxcp.plan import Choice
from onnxcp.profiling import contexts
from onnxcp.providers import Target
from onnxcp.rewrite import rewrite
from onnxcp.sessions import open_runner
from onnxcp.sites import Site
from onnxcp.survey import survey

NETWORKS = ("resnet18", "resnet50", "vgg19")
PRECISIONS = {"float32": {"use_tf32": "0"}, "tf32": {"use_tf32": "1"}, "float16": {}}
TRIED = ("cp3", "cp4", "svd")
SECONDS, TURNS = 6.0, 2000  # of two whole models in turns


def network(name: str, batch: int, precision: str, data: Path) -> onnx.ModelProto:
    """ResNet-18 has its own weights, the others random ones."""
    made = onnx.load(data / MODELS[name]) if name in MODELS else light(name, batch)
    if precision == "float16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        made = convert_float_to_float16(made)
    return made


def choices(site: Site, ratio: float, block: int) -> list[Choice]:
    """Each form at the least candidate rank from `ratio` times the output channels."""
    least, found = ratio * site.shape[0], []
    for name in TRIED:
        ranks = [r for r in candidate_ranks(FORMS[name], site, block) if r >= least]
        found += [Choice(name, rank) for rank in ranks[:1]]
    return found


def measured(path: Path, batch: int, target: Target, ratio: float, folder: Path) -> dict[str, Any]:
    """One row: the model as it is, and with every chain that is faster."""
    model = files.load(path)
    free = any(spec.has_free_batch for spec in model.inputs)
    inputs = prepare(model.inputs, Sources(batch=batch if free else None))
    sites, _ = survey(model, inputs.shapes, target, inputs.timed)
    wanted = {s.name: choices(s, ratio, target.block) for s in sites}
    wanted = {name: found for name, found in wanted.items() if found}
    times = measure(wanted, contexts(model, sites, inputs), target, time.perf_counter)
    best = {n: min(row.tried, key=lambda m: m.seconds) for n, row in times.items()}
    chosen = {n: m for n, m in best.items() if m.is_faster}
    rewritten = folder / "chains.onnx"
    write(model, sites, chosen, rewritten)
    runs = [open_runner(p, target).bound(inputs.timed) for p in (path, rewritten)]
    before, after = take_turns(runs, time.perf_counter, turns=TURNS, warmup=20, seconds=SECONDS)
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


def write(
    model: files.Model, sites: Sequence[Site], chosen: dict[str, Measured], path: Path
) -> None:
    """The model with random chains."""
    rng = np.random.default_rng(0)
    chains = {s.name: chain_of(s, chosen[s.name].choice, rng) for s in sites if s.name in chosen}
    made = rewrite(model.proto, chains, sites, metadata={}, external=model.external)
    files.save(made.proto, path, made.external)


def rows(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    given = dict(text.split("=", 1) for text in options.provider_option)
    for name in options.model or NETWORKS:
        for precision in options.precision or PRECISIONS:
            for batch in options.batch or (1, 8, 32):
                settings = {**PRECISIONS[precision], "enable_cuda_graph": str(int(options.graph))}
                settings = settings if options.provider == "cuda" else {}
                target = Target.named(options.provider, options.threads, {**settings, **given})
                row = {"model": name, "precision": precision, "batch": batch}
                path = folder / f"{name}.onnx"
                onnx.save(network(name, batch, precision, options.data), path)
                begun = time.perf_counter()
                try:
                    row |= measured(path, batch, target, options.ratio, folder)
                except OnnxcpError as error:
                    row["error"] = str(error)
                seconds = math.ceil(time.perf_counter() - begun)
                print(f"{seconds} s {json.dumps(row)}", file=sys.stderr, flush=True)
                yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", choices=NETWORKS)
    parser.add_argument("--precision", action="append", choices=list(PRECISIONS))
    parser.add_argument("--batch", action="append", type=int)
    parser.add_argument("--ratio", type=float, default=1.0, help="rank over output channels")
    parser.add_argument("--graph", action="store_true", help="time replays of a CUDA graph")
    parser.add_argument("--provider", default="cuda")
    parser.add_argument("--provider-option", action="append", default=[], metavar="K=V")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    where = environment(Target.named(options.provider, options.threads))
    with tempfile.TemporaryDirectory() as folder:
        found = list(rows(options, Path(folder)))
    print(json.dumps({"environment": where, "graph": options.graph, "rows": found}, indent=2))


if __name__ == "__main__":
    main()
