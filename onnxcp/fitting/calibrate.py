"""What the sites of a model read on calibration data, by running it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxcp.data.roles import Inputs
from onnxcp.data.samples import digest
from onnxcp.fitting.statistics import MEMORY, Statistics, collect
from onnxcp.fitting.statistics_store import load_statistics, save_statistics
from onnxcp.graph import io
from onnxcp.graph.input_specs import Feeds
from onnxcp.graph.sites import Site
from onnxcp.graph.splice import with_outputs
from onnxcp.progress import Progress, silent
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner
from onnxcp.storage import keys

CODE = ("data", "fitting", "graph", "runtime")  # of statistics


def _computed(model: io.Model, sources: Sequence[str]) -> list[str] | None:
    """Those of the sources that no input feeds; None where there are none."""
    fed = {spec.name for spec in model.inputs}
    return [name for name in sources if name not in fed] or None


def calibrate(
    model: io.Model,
    sites: Sequence[Site],
    inputs: Inputs,
    target: Target,
    folder: Path,
    *,
    among: Sequence[Site] | None = None,
    correct_bias: bool = True,
    memory: int = MEMORY,
    seed: int = 0,
    kept_in: Path | None = None,
    progress: Progress = silent,
) -> tuple[dict[str, Statistics], str | None]:
    """Statistics of the sites' inputs by kernel tensor, and the hash of the samples run; none
    without calibration samples. Covariances are written to `folder`, or to a folder of their
    own in `kept_in`, from which a later run with the same of everything takes them.

    Raises:
        DataError: activations that are NaN or infinite.
        UsageError: a memory limit that can not be kept.
    """
    samples, batching, watched = (
        inputs.calibration,
        inputs.calibration_batching,
        folder / "watched.onnx",
    )
    if samples is None:
        return {}, None
    unlabelled = replace(samples, labels=None)
    sha256 = digest(unlabelled, batching.size)
    if kept_in is not None:
        settings = {
            "model": model.sha256,
            "samples": sha256,
            "sites": [site.name for site in sites],
            "correct_bias": correct_bias,
            "memory": memory,
            "seed": seed,
        }
        folder = kept_in / f"calibration-{keys.key('calibration', CODE, settings)[:16]}"
        known = load_statistics(folder)
        if known is not None:
            return known, sha256
        folder.mkdir(parents=True, exist_ok=True)
    sources = list(dict.fromkeys(site.source for site in sites))
    io.save(with_outputs(model.proto, sources), watched, model.external)
    runner = open_runner(watched, target.unhurried, _computed(model, sources))

    def run(feeds: Feeds) -> dict[str, np.ndarray]:
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
    if kept_in is not None:
        save_statistics(folder, found)
    return found, sha256
