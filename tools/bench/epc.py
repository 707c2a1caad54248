"""Sensitivity of plain least-squares factors against error-preserving correction.

For every dense window of some models, at rank = `--ratio` × output channels: plain
alternating least squares (no extrapolation, `--sweeps` sweeps), rescaled as well as its
terms allow, against the same factors corrected at an error at most 1 % larger. Prints JSON
with a row for every kernel and the least and median reduction over all of them. Kernels of
fewer than 16 inputs are left out; `--most-channels` leaves out large ones too, which take
most of the time.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from factors import alternating
from threadpoolctl import threadpool_limits

from onnxcp import forms
from onnxcp.forms import Effort
from onnxcp.forms.solvers.cp_algebra import Target, sensitivity
from onnxcp.forms.solvers.cp_epc import correct, error_of
from onnxcp.graph import io, shapes, sites
from onnxcp.graph.input_specs import known_shapes
from onnxcp.graph.sites import Site
from onnxcp.plan import round_up

FORMS = ("cp3", "cp4")
FEWEST_INPUTS = 16  # below, a kernel has no use for many terms


def compare(site: Site, form: str, ratio: float, sweeps: int) -> dict[str, object]:
    """One kernel: error and sensitivity before and after the correction."""
    outputs, _, height, width = site.shape
    spatial = (height, width) if form == "cp4" else (height * width,)
    target, effort = Target.of(site.kernel, spatial), Effort()
    rank = round_up(ratio * outputs, 16)
    found = alternating(target, rank, np.random.default_rng(0), sweeps)
    factors, error = found.factors, found.objective
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


def find(path: Path, most_channels: int | None) -> list[Site]:
    """The kernels of a model that are compared."""
    model = io.load(path)
    found, _ = sites.find(model.proto, shapes.infer(model.proto, known_shapes(model.inputs)))
    most = most_channels or max((max(site.shape[:2]) for site in found), default=0)
    return [s for s in found if s.shape[1] >= FEWEST_INPUTS and max(s.shape[:2]) <= most]


def summary(rows: Sequence[dict[str, object]]) -> dict[str, object]:
    """Least and median reduction, of all rows and of each form's."""
    reductions = {"all": [float(str(row["reduction"])) for row in rows]}
    for form in FORMS:
        reductions[form] = [float(str(row["reduction"])) for row in rows if row["form"] == form]
    return {
        name: {"least": min(values), "median": statistics.median(values), "kernels": len(values)}
        for name, values in reductions.items()
        if values
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--ratio", type=float, default=1.0)
    parser.add_argument("--sweeps", type=int, default=500)
    parser.add_argument("--most-channels", type=int)
    options = parser.parse_args()
    rows = []
    with threadpool_limits(1):
        for model in options.models:
            for site in find(model, options.most_channels):
                print(f"{model.stem} {site.name}", file=sys.stderr)
                for form in [f for f in FORMS if forms.FORMS[f].refuses(site.part) is None]:
                    row = compare(site, form, options.ratio, options.sweeps)
                    rows.append({"model": model.stem} | row)
    document = {"reduction": summary(rows), "ratio": options.ratio, "sweeps": options.sweeps}
    print(json.dumps(document | {"rows": rows}, indent=2))


if __name__ == "__main__":
    main()
