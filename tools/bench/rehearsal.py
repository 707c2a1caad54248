"""What training with rounding wins back of what chains and int8 cost: ResNet-20 on CIFAR-10.

`cp3` chains at the rank of the output channels take the place of all 3×3 kernels but the first
(see `bench_int8`). Judged are the original, the chains in float, their int8 as it comes, and
int8 after training. With `--float-epochs` the chains are trained in float first, and the
training for int8 starts from there. The first `--images` of train.npz train, less every tenth
or fewer that choose the weights; test.npz judges in the end alone. Prints JSON.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
from int8 import BATCH, CALIBRATING, chained
from networks import DATA, MODELS

from onnxcp.data.roles import Inputs, Sources, prepare
from onnxcp.data.samples import Batching
from onnxcp.graph import io
from onnxcp.graph.weights import with_weights
from onnxcp.measure import metrics
from onnxcp.measure.accuracy import Evaluation
from onnxcp.quantization.scheme import fastest
from onnxcp.quantization.static import Prepared
from onnxcp.quantization.static import prepare as prepare_int8
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner
from onnxcp.training.distill import Distilled, distill
from onnxcp.training.qat import distill_int8
from onnxcp.training.recipe import Recipe

NAME, RATIO = "resnet20", 1.0
AUGMENT = ("flip", "crop")
TARGET = Target.named("cpu", 1)


def ready(proto: onnx.ModelProto, inputs: Inputs) -> Prepared:
    """A float model with the ranges of its activations."""
    assert inputs.calibration is not None
    step = max(1, len(inputs.calibration) // CALIBRATING)
    samples = inputs.calibration.split(step)[0].first(CALIBRATING)
    return prepare_int8(proto, samples, Batching(BATCH, fixed=False), fastest())


def models(
    inputs: Inputs, options: argparse.Namespace, folder: Path
) -> Iterator[tuple[str, onnx.ModelProto, dict[str, Any]]]:
    """All models, the original first, with what their training told."""
    original = io.load(options.data / MODELS[NAME])
    chains = io.load(chained(NAME, RATIO, options, folder))
    proto = chains.proto
    yield "float", original.proto, {}
    yield "chains", proto, {}
    yield "chains int8", ready(proto, inputs).quantized(), {}
    if options.float_epochs:
        recipe = Recipe(options.float_epochs, learning_rate=options.float_rate, augment=AUGMENT)
        start, taught = time.perf_counter(), distill(original, chains, inputs, recipe)
        proto = with_weights(proto, taught.trained.weights)
        yield "chains trained", proto, told(taught, start)
        yield "chains trained, int8", ready(proto, inputs).quantized(), {}
    recipe = Recipe(options.epochs, learning_rate=options.rate, augment=AUGMENT)
    start = time.perf_counter()
    made, taught = distill_int8(original, ready(proto, inputs), inputs, recipe)
    yield "int8 trained", made.quantized(), told(taught, start)


def told(taught: Distilled, start: float) -> dict[str, Any]:
    return {
        "seconds": time.perf_counter() - start,
        "samples": taught.samples,
        "parity": taught.parity,
        "epochs": [asdict(epoch) for epoch in taught.trained.epochs],
        "stopped": taught.trained.stopped,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rate", type=float, default=3e-4, help="of learning, for int8")
    parser.add_argument("--float-epochs", type=int, default=0)
    parser.add_argument("--float-rate", type=float, default=1e-3)
    parser.add_argument("--data", type=Path, default=DATA, help="default: $ONNXCP_DATA")
    parser.add_argument("--cache", type=Path, help="keeps fits; default: as optimize")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    images = options.data / "cifar10"
    asked = Sources(
        data=(f"{images}/test.npz",),
        calibration=(f"{images}/calibration.npz",),
        train=(f"{images}/train.npz[:{options.images}]",),
        trains=True,
        preprocess="cifar10",
    )
    original = options.data / MODELS[NAME]
    inputs = prepare(io.load(original).inputs, asked)
    assert inputs.samples is not None
    metric = metrics.TOP1
    judge = Evaluation(open_runner(original, TARGET), inputs.samples, metric, inputs.batching)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, proto, more in models(inputs, options, Path(folder)):
            found = judge.measure(open_runner(proto.SerializeToString(), TARGET))
            shown = {"top1": found.after, "drop": found.drop, "drop_ci": found.drop_ci}
            rows.append({"variant": name, **shown, **more})
    print(json.dumps({"images": options.images, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
