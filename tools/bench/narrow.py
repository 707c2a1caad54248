"""Chains in narrower numbers, for benchmarks: rounded to float16, or static int8; and the ranges
inside them, which are what int8 spreads its levels over.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from onnxcp.chain import Chain
from onnxcp.data.samples import Batching, Samples
from onnxcp.graph import io
from onnxcp.graph.splice import rewrite, with_outputs
from onnxcp.optimization.run import Run
from onnxcp.quantization.scheme import fastest
from onnxcp.quantization.static import prepare as prepare_int8

CALIBRATING, BATCH = 512, 64  # images for ranges
Chains = Mapping[str, Chain]
Ranges = Mapping[str, tuple[np.ndarray, np.ndarray]]  # behind the first 1×1, behind the window


def calibrating(job: Run) -> Samples:
    assert job.inputs.calibration is not None
    return job.inputs.calibration.first(CALIBRATING)


def built(job: Run, chains: Chains) -> onnx.ModelProto:
    return rewrite(job.model.proto, chains, job.sites, metadata={}).proto


def rounded(chain: Chain) -> Chain:
    """The chain with the weights that float16 keeps."""
    with np.errstate(over="ignore"):
        return tuple(replace(s, weight=s.weight.astype(np.float16)) for s in chain)


def ranges(job: Run, chains: Chains) -> Ranges:
    """The largest magnitude of every channel inside every chain, on calibration images."""
    roles = {n: [f"{n}/cp/{s.role}_out" for s in chain[:-1]] for n, chain in chains.items()}
    path = job.folder / "inside.onnx"
    inside = [name for names in roles.values() for name in names]
    io.save(with_outputs(built(job, chains), inside), path)
    runner, most = job.judged_runner(path), dict[str, np.ndarray]()
    for feeds in calibrating(job).batches(BATCH):
        for name, seen in zip(runner.outputs, runner(feeds), strict=True):
            if seen.ndim == 4:
                found = np.abs(seen).max(axis=(0, 2, 3))
                most[name] = np.maximum(most.get(name, 0.0), found)
    return {n: (most[first], most[second]) for n, (first, second) in roles.items()}


def quantized(job: Run, model: onnx.ModelProto, *, made_for_chains: bool = True) -> Path:
    """The static int8 model of a float one; chains equalised and means corrected, or neither."""
    scheme = replace(fastest(), equalise=made_for_chains, correct_bias=made_for_chains)
    path = job.folder / "int8.onnx"
    made = prepare_int8(model, calibrating(job), Batching(BATCH, fixed=False), scheme).quantized()
    io.save(made, path)
    return path
