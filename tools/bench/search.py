"""Searched plans on real networks: the speed-up found, the drop in the end, and what it took.

Each row is one run of `onnxcp optimize`, on one thread, in a process of its own. With several
strategies all runs of a network share one latency table and one cache of fits, so that they
choose from the same menu; `--fresh` gives every run an empty cache, to see what a first run
takes, and runs each a second time with what the first one left.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from networks import DATA, MODELS, run, sources

from onnxcp.search import STRATEGIES

BUDGETS = {"vdsr": "0.1"}  # decibels; else a hundredth of the images


def measure(
    name: str, strategy: str, options: argparse.Namespace, folder: Path, number: int
) -> dict[str, Any]:
    """One run."""
    report = folder / f"{number}.json"
    command = [sys.executable, "-m", "onnxcp", "optimize", str(options.data / MODELS[name])]
    command += ["-o", str(folder / f"{number}.onnx"), "--report", str(report), "--quiet"]
    command += [*sources(name, options.data, folder), "--max-drop", BUDGETS.get(name, "0.01")]
    command += ["--strategy", strategy, "--cache", str(folder / "kept"), "--threads", "1"]
    command += ["--jobs", str(options.jobs), *options.more]
    seconds, peak = run(command)
    found = json.loads(report.read_text(encoding="utf-8"))
    print(f"{name} {strategy}: {found['verdict']}", file=sys.stderr)
    return (
        {"model": name, "strategy": strategy}
        | row(found)
        | {
            "wall_seconds": seconds,
            "peak_bytes": peak,
        }
    )


def row(found: dict[str, Any]) -> dict[str, Any]:
    """The figures of interest in a run's report."""
    accuracy, latency, search = found["accuracy"], found["latency"], found["search"]
    quantized = found["quantization"] or {"rivals": [], "chained": None}
    made = {
        "verdict": found["verdict"],
        "exit_code": found["exit_code"],
        "precision": found["precision"],
        "rivals": quantized["rivals"],
        "drop_of_chains": quantized["chained"] and quantized["chained"]["drop"],
        "replaced": len(found["plan"]),
        "speedup": latency and latency["speedup"],
        "speedup_ci": latency and latency["speedup_ci"],
        "ms_before": latency and latency["before"]["p50"],
        "ms_after": latency and latency["after"]["p50"],
        "metric": accuracy and accuracy["metric"],
        "before": accuracy and accuracy["before"],
        "after": accuracy and accuracy["after"],
        "drop": accuracy and accuracy["drop"],
        "drop_ci": accuracy and accuracy["drop_ci"],
    }
    if search is None:  # there is no chain to search for, or none is written
        return made
    return made | {
        "ms_predicted": search["predicted_ms"],
        "samples": search["samples"],
        "held_out": search["held_out"],
        "judged": len(search["judged"]),
        "tried": search["tried"],
        "search_seconds": search["seconds"],
        "scale": search["scale"],
        "checks": search["checks"],
        "plans": search["judged"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", choices=MODELS, help="repeatable")
    parser.add_argument("--strategy", action="append", choices=STRATEGIES, help="repeatable")
    parser.add_argument("--data", type=Path, default=DATA, help="default: $ONNXCP_DATA")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--fresh", action="store_true", help="an empty cache for every run")
    parser.add_argument("more", nargs="*", help="options of optimize, after --")
    options = parser.parse_args()
    rows = []
    for name in options.model or MODELS:
        with tempfile.TemporaryDirectory() as temporary:
            for number, strategy in enumerate(options.strategy or ["knapsack"]):
                folder = Path(temporary) / str(number if options.fresh else "")
                folder.mkdir(exist_ok=True)
                for again in range(1 + options.fresh):
                    made = measure(name, strategy, options, folder, 10 * number + again)
                    rows.append({**made, "cached": bool(again)})
    print(json.dumps({"threads": 1, "jobs": options.jobs, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
