"""What is left of a chain's accuracy once it is rounded to float16 or quantized to int8.

Every 3×3 kernel but the first becomes a `cp3` chain at rank = `--ratio` × output channels.
The factors come from four fits: under the norm of real activations; in the plain norm, with
error-preserving correction at every `--slack` of more error; by plain alternating least
squares until it reaches the error of the first of these; and by TensorLy's `parafac`, as it
returns them. Each is judged in float32, with the chain's weights rounded to float16, and as
static int8, plain and as `quantize` makes it, with chains equalised and means corrected. Prints
JSON; `spread` is the widest channel's range over the median one's.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from factors import alternating, forced_plan, kernel_error, uniform_job
from narrow import CALIBRATING, Chains, built, quantized, ranges, rounded
from networks import DATA
from tensorly.decomposition import parafac
from threadpoolctl import threadpool_limits

from onnxcp.forms import FORMS, Effort
from onnxcp.forms.solvers.cp_algebra import Factors, sensitivity
from onnxcp.forms.solvers.cp_algebra import Target as Tensor
from onnxcp.graph import io
from onnxcp.graph.sites import Site
from onnxcp.measure import metrics
from onnxcp.measure.accuracy import Evaluation
from onnxcp.optimization.calibration import learn_inputs
from onnxcp.optimization.run import Run

FORM = FORMS["cp3"]


def by_als(site: Site, rank: int, goal: float, sweeps: int) -> Factors:
    """Plain alternating least squares from random factors, until the relative error `goal`."""
    tensor, rng = Tensor.of(site.kernel, (site.kernel[0, 0].size,)), np.random.default_rng(0)
    return alternating(tensor, rank, rng, sweeps, goal=goal).factors


def by_parafac(site: Site, rank: int, iterations: int) -> Factors:
    """What TensorLy gives for the kernel with its positions merged."""
    tensor = site.kernel.astype(np.float64).reshape(*site.shape[:2], -1)
    found = parafac(tensor, rank, n_iter_max=iterations, init="random", random_state=0)
    return tuple(found.factors)


class Bench:
    """One model and ratio."""

    def __init__(self, job: Run, slacks: list[float], sweeps: int, iterations: int) -> None:
        self.job, self.slacks = job, slacks
        self.sweeps, self.iterations = sweeps, iterations
        self.plan = forced_plan(job)
        self.sites = {s.name: s for s in job.sites if s.name in self.plan.choices}
        original = job.judged_runner(job.model.path)
        assert job.inputs.samples is not None
        top1 = metrics.TOP1
        self.judge = Evaluation(original, job.inputs.samples, top1, job.inputs.batching)

    def top1(self, source: Path) -> float:
        return self.judge.measure(self.job.judged_runner(source)).after

    def float_top1(self, chains: Chains) -> float:
        path = self.job.folder / "float.onnx"
        io.save(built(self.job, chains), path)
        return self.top1(path)

    def int8_top1(self, chains: Chains, *, made_for_chains: bool) -> float:
        model = built(self.job, chains)
        return self.top1(quantized(self.job, model, made_for_chains=made_for_chains))

    def fitted(self, slack: float) -> dict[str, Factors]:
        """Factors as the library fits them, in the norm it knows at this moment."""
        fits, effort = self.job.fits, Effort(slack=slack)
        return {n: fits.get(n, c, effort).factors[0] for n, c in self.plan.choices.items()}

    def each(self, fit: Callable[[Site, int], Factors]) -> dict[str, Factors]:
        return {n: fit(s, self.plan.choices[n].rank) for n, s in self.sites.items()}

    def rows(self) -> Iterator[dict[str, object]]:
        """A row for every fit; the library's own under its norm of activations comes last,
        because it cannot forget what it learned of them."""
        calm = self.fitted(self.slacks[0])
        goals = {n: kernel_error(s, calm[n]) for n, s in self.sites.items()}
        yield {"fit": "original", "float32": self.judge.before} | {
            "int8": self.int8_top1({}, made_for_chains=True)
        }
        for slack in self.slacks:
            chains = self.job.fits.chains(self.plan, Effort(slack=slack)).by_site
            yield self.row(f"plain norm, corrected, slack {slack}", self.fitted(slack), chains)
        als = self.each(lambda s, rank: by_als(s, rank, goals[s.name], self.sweeps))
        yield self.row("plain least squares", als)
        public = self.each(lambda s, rank: by_parafac(s, rank, self.iterations))
        yield self.row("parafac", public)
        learn_inputs(self.job, list(self.sites))
        chains = self.job.fits.chains(self.plan).by_site
        yield self.row("norm of activations", self.fitted(Effort().slack), chains)

    def row(
        self, fit: str, factors: Mapping[str, Factors], made: Chains | None = None
    ) -> dict[str, object]:
        """One fit's accuracies; its chains are made of the factors where none are given."""
        sites = self.sites
        chains = made or {
            n: FORM.stages(f, sites[n].shape, sites[n].geometry) for n, f in factors.items()
        }
        found = ranges(self.job, chains)
        errors = [kernel_error(site, factors[n]) for n, site in sites.items()]
        top1 = {
            "float32": self.float_top1(chains),
            "float16": self.float_top1({n: rounded(c) for n, c in chains.items()}),
            "plain int8": self.int8_top1(chains, made_for_chains=False),
            "int8": self.int8_top1(chains, made_for_chains=True),
        }
        return {
            "fit": fit,
            "kernel_error": float(np.median(errors)),
            "sensitivity": float(np.median([sensitivity(f) for f in factors.values()])),
            "spread": float(np.median([_spread(f) for pair in found.values() for f in pair])),
            **top1,
            "drops": {n: top1["float32"] - v for n, v in top1.items() if n != "float32"},
        }


def _spread(found: np.ndarray) -> float:
    """The widest channel's range over the median one's."""
    return float(found.max() / max(np.median(found), np.finfo(np.float32).tiny))


def run(model: str, ratio: float, options: argparse.Namespace) -> list[dict[str, object]]:
    rows = []
    with uniform_job(model, FORM.name, ratio, options.data) as job, threadpool_limits(1):
        for row in Bench(job, options.slack, options.sweeps, options.iterations).rows():
            rows.append({"model": model, "ratio": ratio} | row)
            print(json.dumps(rows[-1]), file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", choices=("resnet20", "resnet56"))
    parser.add_argument("--ratio", type=float, action="append", help="repeatable; default 2")
    parser.add_argument("--data", type=Path, default=DATA, help="default: $ONNXCP_DATA")
    parser.add_argument("--slack", type=float, nargs="+", default=[0.01, 0.1])
    parser.add_argument("--sweeps", type=int, default=3000, help="of plain least squares")
    parser.add_argument("--iterations", type=int, default=100, help="of parafac")
    options = parser.parse_args()
    rows = []
    for model in options.model or ("resnet20", "resnet56"):
        for ratio in options.ratio or [2.0]:
            rows += run(model, ratio, options)
    print(json.dumps({"calibration_images": CALIBRATING, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
