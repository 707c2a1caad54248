"""What int8 gains where the first convolution reads an image in 2×2 blocks.

Models of two convolutions with random weights, a strided one and a 1×1, quantized as `optimize`
does it; as they are and with blocks in turns, on one thread, at batch 1. Prints JSON:
microseconds of both and their ratio with its 95 % interval. Above 1 is faster with blocks.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

from onnxcp.data.samples import Batching, Samples
from onnxcp.measure.stopwatch import stopwatch
from onnxcp.measure.timing import speedup, take_turns
from onnxcp.quantization import space_to_depth
from onnxcp.quantization.scheme import fastest
from onnxcp.quantization.static import prepare
from onnxcp.runtime.environment import environment
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner

TARGET = Target.named("cpu", 1)
TURNS = 20_000
# channels of the image, side of the window, output channels, side of the image: of ResNet,
# MobileNet, a small one; then more channels than `stems` takes
SIZES = (
    (3, 7, 64, 224),
    (3, 3, 32, 224),
    (3, 5, 32, 224),
    (3, 3, 16, 128),
    (1, 7, 64, 224),
    (1, 3, 32, 128),
    (4, 3, 32, 224),
    (8, 3, 32, 112),
)


def model(channels: int, window: int, outputs: int, side: int) -> onnx.ModelProto:
    """The two convolutions in float."""
    rng, node = np.random.default_rng(0), onnx.helper.make_node
    shapes = {"first": (outputs, channels, window, window), "second": (64, outputs, 1, 1)}
    stored = [
        onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    pads = [window // 2] * 4
    nodes = [
        node("Conv", ["x", "first"], ["a"], "stem", strides=[2, 2], pads=pads),
        node("Relu", ["a"], ["r"], "relu"),
        node("Conv", ["r", "second"], ["y"], "next"),
    ]
    value, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    fed, made = value("x", kind, [1, channels, side, side]), value("y", kind, [None] * 4)
    graph = onnx.helper.make_graph(nodes, "stem", [fed], [made], stored)
    opsets = [onnx.helper.make_opsetid("", 13)]
    return onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets)


def measured(size: tuple[int, int, int, int], seconds: float) -> dict[str, Any]:
    """One size's times."""
    channels, window, outputs, side = size
    images = np.random.default_rng(1).standard_normal((16, channels, side, side), np.float32)
    given = Samples(lambda rows: {"x": images[list(rows)]}, range(16), None, "random images")
    ready = prepare(model(*size), given, Batching(1, fixed=True), fastest())
    plain, blocks = ready.quantized(), ready.quantized()
    space_to_depth.fold(blocks, most=channels)
    feeds = {"x": images[:1]}
    runners = [open_runner(m.SerializeToString(), TARGET) for m in (plain, blocks)]
    one, other = (runner(feeds) for runner in runners)
    runs = [runner.bound(feeds) for runner in runners]
    timings = take_turns(runs, stopwatch(TARGET), turns=TURNS, warmup=10, seconds=seconds)
    ratio = speedup(*timings)
    return {
        "channels": channels,
        "window": window,
        "outputs": outputs,
        "side": side,
        "taken": channels <= space_to_depth.MOST,
        "same_integers": all(np.array_equal(a, b) for a, b in zip(one, other, strict=True)),
        "microseconds": [1e6 * timing.median for timing in timings],
        "speedup": [ratio.ratio, ratio.low, ratio.high],
    }


def rows(seconds: float) -> Iterator[dict[str, Any]]:
    for size in SIZES:
        print(f"{size}", file=sys.stderr)
        yield measured(size, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of every size, at most")
    asked = parser.parse_args()
    document = {"environment": environment(TARGET), "rows": list(rows(asked.seconds))}
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
