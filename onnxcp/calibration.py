"""What the sites of a model read on calibration data, by running it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onnxcp import files
from onnxcp.activations import MEMORY, Statistics, collect
from onnxcp.inputs import Inputs
from onnxcp.progress import Progress, silent
from onnxcp.providers import Target, open_runner
from onnxcp.rewrite import with_outputs
from onnxcp.sites import Site
from onnxcp.tensors import Feeds


def calibrate(
    model: files.Model,
    sites: Sequence[Site],
    inputs: Inputs,
    target: Target,
    folder: Path,
    *,
    among: Sequence[Site] | None = None,
    correct_bias: bool = True,
    memory: int = MEMORY,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[dict[str, Statistics], str | None]:
    """Statistics of the sites' inputs by kernel tensor, and the hash of the samples run; none
    without calibration samples.

    Raises:
        DataError: activations that are NaN or infinite.
        UsageError: a memory limit that can not be kept.
    """
    samples, batching = inputs.calibration, inputs.calibrating
    if samples is None:
        return {}, None
    sources = list(dict.fromkeys(site.source for site in sites))
    path = folder / "watched.onnx"
    files.save(with_outputs(model.proto, sources), path, model.external)
    runner = open_runner(path, target.unhurried)

    digest = hashlib.sha256()

    def run(feeds: Feeds) -> dict[str, np.ndarray]:
        for name in sorted(feeds):
            digest.update(np.ascontiguousarray(feeds[name]).tobytes())
        return {**feeds, **dict(zip(runner.outputs, batching.run(runner, feeds), strict=True))}

    found = collect(
        run,
        samples.batches(batching.size),
        len(samples),
        sites,
        folder,
        among=among,
        correct_bias=correct_bias,
        memory=memory,
        seed=seed,
        progress=progress,
    )
    return found, digest.hexdigest()
