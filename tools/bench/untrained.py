"""Accuracy kept without any training, all 3×3 kernels but the first replaced at one ratio.

For every row `onnxcp optimize` runs as a user would run it, in a process of its own, with
ranks forced to ratio × output channels; 1,024 images calibrate CIFAR-10 networks, 400 the
ImageNet one, and others judge.
Prints JSON; `peak_bytes` is what the largest process of a run held.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from networks import DATA, MODELS, run, sources


class Network(NamedTuple):
    """Its sites by `--include` or `--exclude`, and the rows it is measured at."""

    sites: tuple[str, str]
    rows: tuple[tuple[str, float], ...]  # form, ratio


CIFAR = (("cp3", 1.0), ("cp3", 2.0), ("cp4", 1.0))
NETWORKS = {
    "resnet20": Network(("--exclude", "conv1"), CIFAR),
    "resnet56": Network(("--exclude", "conv1"), CIFAR),
    "resnet18": Network(
        ("--include", "layer*.conv?"),
        (("cp3", 2.0), ("cp3", 1.5), ("cp3", 1.0)),
    ),
}


def measure(name: str, form: str, ratio: float, options: argparse.Namespace) -> dict[str, Any]:
    """One row: a network at one form and ratio."""
    network = NETWORKS[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        report = folder / "run.json"
        command = [sys.executable, "-m", "onnxcp", "optimize", str(options.data / MODELS[name])]
        command += [
            "-o",
            str(folder / "out.onnx"),
            "--report",
            str(report),
            "--quiet",
            "--no-cache",
        ]
        command += ["--form", form, "--rank", f"*={ratio}c", *network.sites]
        command += [
            *sources(name, options.data, folder),
            "--threads",
            "1",
            "--jobs",
            str(options.jobs),
        ]
        command += ["--sequential"] * options.sequential
        seconds, peak = run(command)
        found = json.loads(report.read_text(encoding="utf-8"))
    return {"model": name, "form": form, "ratio": ratio} | row(found, seconds, peak)


def row(found: dict[str, Any], seconds: float, peak: int) -> dict[str, Any]:
    """The figures of interest in a run's report."""
    accuracy, latency, model = found["accuracy"], found["latency"], found["model"]
    fits = [site["fit_seconds"] for site in found["sites"] if site["fit_seconds"] is not None]
    return {
        "replaced": len(fits),
        "samples": accuracy["samples"],
        "top1_before": accuracy["before"],
        "top1_after": accuracy["after"],
        "drop": accuracy["drop"],
        "drop_ci": accuracy["drop_ci"],
        "macs_ratio": model["macs_before"] / model["macs_after"],
        "speedup": latency["speedup"],
        "speedup_ci": latency["speedup_ci"],
        "fit_seconds": sum(fits),
        "wall_seconds": seconds,
        "peak_bytes": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", choices=NETWORKS, help="repeatable")
    parser.add_argument("--data", type=Path, default=DATA, help="default: $ONNXCP_DATA")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--sequential", action="store_true", help="calibrate in sequence")
    options = parser.parse_args()
    rows = []
    for name in options.model or NETWORKS:
        for form, ratio in NETWORKS[name].rows:
            print(f"{name} {form} {ratio}c", file=sys.stderr)
            rows.append(measure(name, form, ratio, options))
            print(json.dumps(rows[-1]), file=sys.stderr)
    print(
        json.dumps(
            {"threads": 1, "jobs": options.jobs, "sequential": options.sequential, "rows": rows},
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
