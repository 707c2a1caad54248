"""Sensitivity of plain least-squares factors against error-preserving correction.

For every dense window of a model, at rank = `--ratio` × output channels: plain alternating
least squares (no extrapolation, `--sweeps` sweeps), rescaled as well as its terms allow,
against the same factors corrected at an error at most 1 % larger. Prints JSON with a row
for every kernel and the least and median reduction.
"""

import argparse
import json
import statistics
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from onnxcp import files, shapes, sites
from onnxcp.forms import FORMS, Effort
from onnxcp.forms.algebra import Factors, Target, balance, sensitivity
from onnxcp.forms.als import least_squares, sweep
from onnxcp.forms.stable import correct, error_of
from onnxcp.plan import round_up
from onnxcp.sites import Site
from onnxcp.tensors import known_shapes


def plain(target: Target, rank: int, sweeps: int) -> tuple[Factors, float]:
    """Alternating least squares from random factors; squared error of the last sweep."""
    rng = np.random.default_rng(0)
    factors = balance([rng.standard_normal((size, rank)) for size in target.shape])
    error = target.energy
    for _ in range(sweeps):
        factors, error = sweep(target, factors, least_squares)
    return factors, error


def compare(site: Site, form: str, ratio: float, sweeps: int) -> dict[str, object]:
    """One kernel: error and sensitivity before and after the correction."""
    outputs, _, height, width = site.shape
    spatial = (height, width) if form == "cp4" else (height * width,)
    target, effort = Target.of(site.kernel, spatial), Effort()
    rank = round_up(ratio * outputs, 16)
    factors, error = plain(target, rank, sweeps)
    calm = correct(
        target,
        factors,
        bound=error * (1 + effort.slack) ** 2,
        sweeps=effort.corrections,
        tolerance=10 * effort.tolerance,
    )
    before, after = sensitivity(factors), sensitivity(calm.factors)
    error_after = error_of(target, calm.factors)
    return {
        "kernel": site.name,
        "form": form,
        "rank": rank,
        "error_before": float(np.sqrt(error / target.energy)),
        "error_after": float(np.sqrt(error_after / target.energy)),
        "sensitivity_before": before,
        "sensitivity_after": after,
        "reduction": before / after,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--ratio", type=float, default=1.0)
    parser.add_argument("--sweeps", type=int, default=500)
    options = parser.parse_args()
    model = files.load(options.model)
    found, _ = sites.find(model.proto, shapes.infer(model.proto, known_shapes(model.inputs)))
    with threadpool_limits(1):
        rows = [
            compare(site, form, options.ratio, options.sweeps)
            for site in found
            if site.shape[1] >= 16
            for form in ("cp3", "cp4")
            if FORMS[form].refuses(site.part) is None
        ]
    reductions = [float(str(row["reduction"])) for row in rows]
    summary = {"least": min(reductions), "median": statistics.median(reductions)}
    print(json.dumps({"reduction": summary, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
