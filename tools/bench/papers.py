"""The small networks of Song et al. 2021: trained by `small_networks`, rewritten at low ranks,
fine-tuned, and measured beside the figures of the paper.

Every part is a command that a user would run, in a process of its own: `optimize` with ranks
forced, then `finetune`. What trains and calibrates is train.npz less its last images, by which
ranks and recipes were chosen; test.npz judges, once, in the end. With `--held-out` those last
images judge, and test.npz is not read: to choose by.

Times are of the whole network, ONNX Runtime on one thread at batch 1, the models in turns; those
of the convolutions are sums of `inspect --profile`'s and `optimize`'s. Prints JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from networks import DATA, run
from onnx import numpy_helper
from small_networks import SMALL, make

ONNXCP = [sys.executable, "-m", "onnxcp"]
CALIBRATING = 1024  # the first of train.npz; labels are not used
REPEATS = 2  # of the last measurement
SECONDS = 10  # of each
WINDOWED = 4  # dimensions of a convolution's weight; a matrix has 2
EARLIER = (
    "--epochs",
    "3",
    "--batch-size",
    "128",
    "--temperature",
    "2",
)  # once defaults, as trained here


@dataclass(frozen=True)
class Trial:
    """How a network is rewritten and trained, and the paper's figures for it, in its own unit of
    time."""

    form: str
    ranks: tuple[str, ...]
    recipe: tuple[str, ...]
    paper: dict[str, Any]


TRIALS = {
    "lenet": Trial(
        form="auto",
        ranks=("/3/Conv=16", "/7/Gemm=16"),
        recipe=(*EARLIER, "--learning-rate", "0.002"),
        paper={
            "conv_parameters": [52_096, 758],
            "original": {"top1": 0.9926, "time": 14.8},
            "PE-CP": {"top1": 0.9891, "time": 2.9},
        },
    ),
    "cifar": Trial(
        form="auto",
        ranks=("/0/Conv=32", "/3/Conv=64", "/7/Gemm=64"),
        recipe=(
            *(*EARLIER, "--learning-rate", "0.002"),
            *("--augment", "flip,crop", "--label-weight", "0.3"),
        ),
        paper={
            "conv_parameters": [107_328, None],
            "original": {"top1": 0.7631, "time": 8.8},
            "PE-CP": {"top1": 0.7118, "time": 4.9},
            "Gene-CP": {"top1": 0.7175, "time": 5.0},
            "PE-Tucker": {"top1": 0.7132, "time": 5.4},
        },
    ),
}


def measure(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One network: trained if `folder` has none, rewritten, fine-tuned and timed."""
    original, chained, tuned = (folder / f"{name}{end}.onnx" for end in ("", ".chained", ".tuned"))
    if not original.exists():
        make(name, options.data, original)
    trial, sources = TRIALS[name], sources_of(name, options.data, held_out=options.held_out)
    recipe = options.more or trial.recipe
    ranks = options.rank or trial.ranks
    rewritten = rewrite(options.form or trial.form, ranks, sources, original, chained)
    found = finetune(recipe, sources, original, chained, tuned)
    return {
        "network": name,
        "judged_by": sources["judging"],
        **accuracy(found),
        "speedups": [found["speedup"], *(again(original, tuned) for _ in range(REPEATS))],
        **sizes(rewritten, original, tuned),
        "convolutions_ms": convolution_times(rewritten, original),
        "plan": rewritten["plan"],
        "recipe": found["recipe"],
        "epochs": found["epochs"],
        "best_epoch": found["best_epoch"],
        "tuning_seconds": found["seconds"],
        "paper": trial.paper,
    }


def sources_of(name: str, data: Path, *, held_out: bool) -> dict[str, str]:
    """Specifications of the samples that calibrate, train and judge, and their preprocessing."""
    small = SMALL[name]
    images = f"{data}/{small.folder}/train.npz"
    return {
        "calibrating": f"{images}[:{CALIBRATING}]",
        "training": f"{images}[:{small.trained}]",
        "judging": f"{images}[{small.trained}:]" if held_out else f"{data}/{small.folder}/test.npz",
        "preprocess": small.preprocess,
    }


def rewrite(
    form: str, ranks: Sequence[str], sources: dict[str, str], original: Path, chained: Path
) -> dict[str, Any]:
    """The report of `optimize` with ranks forced."""
    report = chained.with_suffix(".json")
    command = [*ONNXCP, "optimize", str(original), "-o", str(chained), "--form", form]
    for rank in ranks:
        command += ["--rank", rank]
    command += ["--calibration", sources["calibrating"], *common(sources, report)]
    return reported(command, report)


def finetune(
    recipe: Sequence[str], sources: dict[str, str], original: Path, chained: Path, tuned: Path
) -> dict[str, Any]:
    """The report of `finetune`."""
    report = tuned.with_suffix(".json")
    command = [*ONNXCP, "finetune", str(original), str(chained), "-o", str(tuned), *recipe]
    command += ["--train", sources["training"], *common(sources, report)]
    return reported(command, report)


def common(sources: dict[str, str], report: Path) -> list[str]:
    """Options of both commands."""
    options = ["--data", sources["judging"], "--preprocess", sources["preprocess"]]
    return [*options, "--threads", "1", "--report", str(report), "--overwrite", "--quiet"]


def reported(command: list[str], report: Path) -> dict[str, Any]:
    """What a command wrote as its report."""
    run(command)
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


def accuracy(found: dict[str, Any]) -> dict[str, Any]:
    """Top-1 of the original, of the chains as they were fitted and after training."""
    before, after = found["accuracy_before"], found["accuracy"]
    return {
        "samples": after["samples"],
        "top1_before": after["before"],
        "top1_untrained": before["after"],
        "top1_after": after["after"],
        "drop": after["drop"],
        "drop_ci": after["drop_ci"],
    }


def again(original: Path, tuned: Path) -> dict[str, Any]:
    """The speed-up in one more measurement."""
    report = tuned.with_suffix(".times.json")
    command = [*ONNXCP, "benchmark", str(original), str(tuned), "--threads", "1", "--quiet"]
    command += ["--duration", str(SECONDS), "--report", str(report), "--overwrite"]
    timed = reported(command, report)["runs"][0]
    ms = [model["milliseconds"]["p50"] for model in timed["models"]]
    return {**timed["speedup"], "ms": ms}


def sizes(rewritten: dict[str, Any], original: Path, tuned: Path) -> dict[str, Any]:
    """Multiply-adds and parameters, biases included, before and after."""
    model = rewritten["model"]
    convolutions = [site for site in rewritten["sites"] if len(site["shape"]) == WINDOWED]
    macs = [sum(site[f"macs_{when}"] for site in convolutions) for when in ("before", "after")]
    names = [site["name"] for site in convolutions]
    return {
        "macs": [model["macs_before"], model["macs_after"]],
        "conv_macs": macs,
        "parameters": [parameters(path, [""]) for path in (original, tuned)],
        "conv_parameters": [parameters(path, names) for path in (original, tuned)],
    }


def parameters(path: Path, starts: Sequence[str]) -> int:
    """Numbers that nodes with names of such starts hold, floating-point ones only."""
    graph = onnx.load(path).graph
    read = {
        name for node in graph.node if node.name.startswith(tuple(starts)) for name in node.input
    }
    held = [t for t in graph.initializer if t.name in read]
    return sum(numpy_helper.to_array(t).size for t in held if t.data_type == onnx.TensorProto.FLOAT)


def convolution_times(rewritten: dict[str, Any], original: Path) -> list[float]:
    """Milliseconds of all convolutions, each timed for itself, before and after."""
    shown = subprocess.run(
        [*ONNXCP, "inspect", str(original), "--profile", "--threads", "1", "--json"],
        capture_output=True,
        check=True,
    )
    alone = {layer["name"]: layer["ms"] for layer in json.loads(shown.stdout)["layers"]}
    pairs = [
        (site["ms_before"], site["ms_after"])
        if site["ms_after"] is not None
        else (alone[site["name"]], alone[site["name"]])
        for site in rewritten["sites"]
        if len(site["shape"]) == WINDOWED
    ]
    return [sum(times) for times in zip(*pairs, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", action="append", choices=TRIALS, help="repeatable")
    parser.add_argument("--data", type=Path, default=DATA, help="default: $ONNXCP_DATA")
    parser.add_argument("--folder", type=Path, help="where models stay, and are taken from")
    parser.add_argument("--held-out", action="store_true", help="judge by images to choose by")
    parser.add_argument("--form", help="in place of the default")
    parser.add_argument("--rank", action="append", help="GLOB=R, in place of all defaults")
    parser.add_argument("more", nargs="*", help="options of finetune, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [measure(name, options, folder) for name in options.network or TRIALS]
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
