"""What exact passes bring: every model given, as JSON, a line to stderr as each is done.

    python tools/bench/exact.py model.onnx det.onnx@x:1x3x480x640
    python tools/bench/exact.py            # small networks as exporters write them, made here

A model's dynamic inputs are fixed as MODEL@NAME:SHAPE. Each is timed with one thread unless
--threads says otherwise: passes added one by one, in turns with what there was before, and in the
end the original and the result in turns. `error` is the largest relative L2 change of any tensor,
each computed from the same values. A machine that is too busy is reported, not measured.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
from exported_networks import NETWORKS

from onnxcp.data.roles import Sources, prepare
from onnxcp.errors import TooBusy
from onnxcp.graph import io
from onnxcp.measure.timing import speedup
from onnxcp.optimization.exact import PassChoice
from onnxcp.optimization.exact_run import SECONDS, TURNS
from onnxcp.runtime.environment import environment
from onnxcp.runtime.providers import Target


def measured(spec: str, target: Target, batch: int | None, folder: Path) -> dict[str, Any]:
    """Passes, speed-up with its interval, and largest change of one model."""
    name, _, shape = spec.partition("@")
    model = io.load(Path(name))
    inputs = prepare(model.inputs, Sources(batch=batch, input_shape=(shape,) if shape else ()))
    row: dict[str, Any] = {"model": Path(name).name, "shapes": dict(inputs.shapes)}
    choice = PassChoice(model, inputs, target, folder)
    row["found"] = choice.candidates()
    try:
        best = choice.best()
        timings = choice.timed((), best.names, TURNS, SECONDS)
    except TooBusy as busy:
        return {**row, "busy": str(busy)}
    ratio = speedup(*timings)
    return {
        **row,
        "passes": [asdict(record) for record in best.records],
        "kept": best.names,
        "error": best.error,
        "ms": [1e3 * timing.median for timing in timings],
        "speedup": [ratio.ratio, ratio.low, ratio.high],
        "verdict": ratio.verdict(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL[@NAME:SHAPE]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int)
    options = parser.parse_args()
    target, rows = Target.named("cpu", options.threads), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as text:
        folder, models = Path(text), options.models
        if not models:
            for name, build in NETWORKS.items():
                onnx.save(build(), folder / f"{name}.onnx")
            models = [str(folder / f"{name}.onnx") for name in NETWORKS]
        for spec in models:
            rows.append(measured(spec, target, options.batch, folder))
            said = rows[-1].get("verdict", rows[-1].get("busy"))
            print(f"{rows[-1]['model']}: {said} {rows[-1].get('kept', '')}", file=sys.stderr)
    print(json.dumps({"environment": environment(target), "models": rows}, indent=2))


if __name__ == "__main__":
    main()
