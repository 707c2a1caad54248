"""What training without labels brings back: chains at one ratio of the channels, then
`onnxcp finetune`; or with `--max-drop` the fastest plan of `onnxcp optimize --finetune`.

CIFAR-10: 30,000 images train without their labels, and 5,000 others judge: all of them a forced
plan, 3,333 of them the plan that the rest has chosen. Prints JSON.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from networks import DATA, MODELS, run, sources


def measure(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One network: rewritten, then trained."""
    original, data = options.data / MODELS[name], options.data / "cifar10"
    chained, tuned = folder / f"{name}.chained.onnx", folder / f"{name}.tuned.onnx"
    onnxcp = [sys.executable, "-m", "onnxcp"]
    command = [*onnxcp, "optimize", str(original), "-o", str(chained), "--quiet"]
    command += ["--form", options.form, "--rank", f"*={options.ratio}c", "--exclude", "conv1"]
    command += [*sources(name, options.data, folder), "--threads", "1"]
    command += ["--report", str(folder / "chained.json"), "--overwrite"]
    fitting, _ = run(command)
    report = folder / "tuned.json"
    command = [*onnxcp, "finetune", str(original), str(chained), "-o", str(tuned), "--overwrite"]
    command += ["--train", f"{data}/train.npz", "--data", f"{data}/test.npz"]
    command += ["--preprocess", "cifar10", "--threads", "1", "--report", str(report), *options.more]
    seconds, peak = run(command)
    model = json.loads((folder / "chained.json").read_text(encoding="utf-8"))["model"]
    found = json.loads(report.read_text(encoding="utf-8"))
    return {
        "model": name,
        "form": options.form,
        "ratio": options.ratio,
        "macs_ratio": model["macs_before"] / model["macs_after"],
        "accuracy_before": found["accuracy_before"],
        "accuracy": found["accuracy"],
        "speedup": found["speedup"],
        "epochs": found["epochs"],
        "recipe": found["recipe"],
        "fit_seconds": fitting,
        "train_seconds": seconds,
        "peak_bytes": peak,
    }


def search(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One network: the fastest plan within the budget after training."""
    original, data = options.data / MODELS[name], options.data / "cifar10"
    report = folder / f"{name}.json"
    command = [sys.executable, "-m", "onnxcp", "optimize", str(original), "--finetune", "--quiet"]
    command += ["-o", str(folder / f"{name}.onnx"), "--report", str(report), "--overwrite"]
    command += ["--train", f"{data}/train.npz", "--data", f"{data}/test.npz"]
    command += ["--preprocess", "cifar10", "--threads", "1", "--no-cache"]
    command += ["--max-drop", options.max_drop, *options.more]
    seconds, peak = run(command)
    found = json.loads(report.read_text(encoding="utf-8"))
    return {
        "model": name,
        "verdict": found["verdict"],
        "macs_ratio": found["model"]["macs_before"] / found["model"]["macs_after"],
        "accuracy": found["accuracy"],
        "latency": found["latency"],
        "finetune": found["finetune"],
        "plan": found["plan"],
        "seconds": seconds,
        "peak_bytes": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", choices=["resnet20", "resnet56"])
    parser.add_argument("--form", default="cp3")
    parser.add_argument("--ratio", type=float, default=1.0, help="rank over output channels")
    parser.add_argument("--max-drop", help="search for the fastest plan within this instead")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("more", nargs="*", help="options of the training, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        one = search if options.max_drop else measure
        rows = [one(name, options, Path(folder)) for name in options.model or ["resnet20"]]
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
