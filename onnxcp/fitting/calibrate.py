"""Calibration: the statistics of the sites' inputs, from runs on the calibration set."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from onnxcp.data.roles import Inputs
from onnxcp.data.samples import digest
from onnxcp.fitting.statistics import MEMORY, Statistics, collect
from onnxcp.fitting.statistics_store import load_statistics, save_statistics
from onnxcp.graph import io
from onnxcp.graph.sites import Site
from onnxcp.progress import Progress, silent
from onnxcp.runtime.providers import Target
from onnxcp.runtime.watch import Watch
from onnxcp.storage import keys

CODE = ("data", "fitting", "graph", "runtime")  # of statistics


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
    """Statistics of the sites' inputs by kernel tensor, and the hash of the calibration samples.

    Empty without calibration samples. Covariances are written to `folder`, or to a subfolder of
    `kept_in`, from which a later run with the same settings and samples reads them.

    Raises:
        DataError: activations are NaN or infinite.
        UsageError: the statistics do not fit the memory limit.
    """
    samples, batching = inputs.calibration, inputs.calibration_batching
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
    found = collect(
        Watch.of(model.proto, sources, target.unhurried, model.external, batching.run),
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
