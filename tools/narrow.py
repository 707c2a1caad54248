"""Chains in narrower numbers, for benchmarks: rounded to float16, or static int8, with the
ranges inside the chains equalised before or not.

A term of a `cp3` chain has two free scales: behind the first 1×1 and behind the window.
Activations are quantized per tensor, so a channel of small range loses most of its bits.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from onnxcp import files
from onnxcp.conv import Chain, Stage
from onnxcp.job import Job
from onnxcp.quantize import quantize
from onnxcp.rewrite import rewrite, with_outputs
from onnxcp.samples import Batching, Samples
from onnxcp.scheme import fastest

CALIBRATING, BATCH = 512, 64  # images for ranges
Chains = Mapping[str, Chain]
Ranges = Mapping[str, tuple[np.ndarray, np.ndarray]]  # behind the first 1×1, behind the window


def calibrating(job: Job) -> Samples:
    assert job.inputs.calibration is not None
    return job.inputs.calibration.first(CALIBRATING)


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
    for feeds in calibrating(job).batches(BATCH):
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
    path = job.folder / "int8.onnx"
    made = quantize(model, calibrating(job), Batching(BATCH, fixed=False), fastest())
    files.save(made, path)
    return path
