"""Chains in narrower numbers, for benchmarks: rounded to float16, or static int8 by ONNX
Runtime's tool (QDQ, int8 weights per channel, uint8 activations, MinMax), with the ranges
inside the chains equalised before or not.

A term of a `cp3` chain has two free scales: behind the first 1×1 and behind the window.
Activations are quantized per tensor, so a channel of small range loses most of its bits.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from onnxcp import files
from onnxcp.conv import Chain, Stage
from onnxcp.job import Job
from onnxcp.rewrite import rewrite, with_outputs
from onnxcp.tensors import Feeds

CALIBRATING, BATCH = 512, 64  # images for ranges
Chains = Mapping[str, Chain]
Ranges = Mapping[str, tuple[np.ndarray, np.ndarray]]  # behind the first 1×1, behind the window


@dataclass(slots=True)
class Images:
    """Calibration images as ONNX Runtime's tools ask for them."""

    batches: Iterator[Feeds]

    def get_next(self) -> dict[str, np.ndarray] | None:
        feeds = next(self.batches, None)
        return None if feeds is None else dict(feeds)


def images(job: Job) -> Iterator[Feeds]:
    assert job.inputs.calibration is not None
    return job.inputs.calibration.first(CALIBRATING).batches(BATCH)


def built(job: Job, chains: Chains) -> onnx.ModelProto:
    return rewrite(job.model.proto, chains, job.sites, metadata={}).proto


def rounded(chain: Chain) -> Chain:
    """The chain with the weights that float16 keeps."""
    with np.errstate(over="ignore"):
        return tuple(replace(s, weight=s.weight.astype(np.float16)) for s in chain)


def ranges(job: Job, chains: Chains) -> Ranges:
    """The largest magnitude of every channel inside every chain, on calibration images."""
    roles = {n: [f"{n}/cp/{s.role}_out" for s in chain[:-1]] for n, chain in chains.items()}
    path = job.folder / "inside.onnx"
    inside = [name for names in roles.values() for name in names]
    files.save(with_outputs(built(job, chains), inside), path)
    runner, most = job.judged_runner(path), dict[str, np.ndarray]()
    for feeds in images(job):
        for name, seen in zip(runner.outputs, runner(feeds), strict=True):
            if seen.ndim == 4:
                found = np.abs(seen).max(axis=(0, 2, 3))
                most[name] = np.maximum(most.get(name, 0.0), found)
    return {n: (most[first], most[second]) for n, (first, second) in roles.items()}


def equalised(chain: Chain, found: tuple[np.ndarray, np.ndarray]) -> Chain:
    """The same chain with equal ranges of all channels behind the first 1×1 and behind the
    window; the last 1×1 makes up for it. Leaving half of the second difference, in logs, to
    the last 1×1's weights helps no more on the networks tried."""
    inputs, window, outputs = chain
    first, second = (np.where(f > 0, f, f.max() or 1.0) for f in found)
    return (
        _times(inputs, 1 / first, 0),
        _times(window, first / second, 0),
        _times(outputs, second, 1),
    )


def _times(stage: Stage, scale: np.ndarray, axis: int) -> Stage:
    shape = [1] * stage.weight.ndim
    shape[axis] = -1
    return replace(stage, weight=stage.weight * scale.reshape(shape))


def quantized(job: Job, model: onnx.ModelProto) -> Path:
    """The static int8 model of a float one."""
    plain, ready, path = (job.folder / f"{n}.onnx" for n in ("plain", "ready", "int8"))
    files.save(model, plain)
    quant_pre_process(plain, ready)
    quantize_static(
        ready,
        path,
        Images(images(job)),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )
    return path
