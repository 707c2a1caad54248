"""Do calmer factors train better? Plain least-squares factors against the same factors after
error-preserving correction, at the same error, trained alike.

Every 3×3 kernel of a CIFAR-10 network but the first becomes a chain at rank = `--ratio` ×
output channels. For every seed, which draws the fits' starts and the order of training:

- `als`: plain alternating least squares of the weights, until it has converged or `--sweeps`;
- `epc`: these factors after correction within exactly their error;
- `inputs`, with `--fit inputs`: the library's own fit, under the norm of real inputs.

All are trained without labels by `onnxcp finetune`'s own training on the same images in the
same order, at every `--rate`; held-out training images choose the rate for each fit and seed,
and test images only judge. Phan et al., ECCV 2020, say that `epc` ends higher. Prints JSON.

Training takes half of the cores that the process may use: for one thread, run it as
`taskset -c 0,1 python tools/bench/epc_training.py`.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from factors import alternating, forced_plan, kernel_error, uniform_job
from networks import DATA
from threadpoolctl import threadpool_limits

from onnxcp.chain import Chain
from onnxcp.data.roles import Sources
from onnxcp.forms import FORMS, Outcome
from onnxcp.forms.solvers.cp_algebra import Factors, Target, sensitivity
from onnxcp.forms.solvers.cp_epc import preserve
from onnxcp.measure import metrics
from onnxcp.measure.accuracy import Evaluation
from onnxcp.measure.evaluator import Limits
from onnxcp.optimization.calibration import learn_inputs
from onnxcp.optimization.run import Run
from onnxcp.options.training import OPTIMIZERS
from onnxcp.plan import Plan
from onnxcp.runtime.providers import Target as Provider
from onnxcp.seeds import digits
from onnxcp.training.finetune import Finetuned, FinetuneRequest, finetune
from onnxcp.training.recipe import Recipe

FITS = ("als", "epc", "inputs")
CORRECTED = 1e-3  # gain of sensitivity over ten sweeps below which correction has converged
CPU = Provider.named("cpu", 1)

Rate = tuple[str, float]  # optimizer, its highest learning rate
Row = dict[str, Any]

RATES: list[Rate] = [("adamw", 1e-3), ("adamw", 3e-4), ("adamw", 1e-4), ("sgd", 0.02)]


@dataclass(frozen=True, slots=True, eq=False)
class Kernels:
    """Factors of all sites by one fit, their chains, and how many fits have converged."""

    factors: Mapping[str, Factors]
    chains: Mapping[str, Chain]
    converged: int


def by_weights(
    job: Run, plan: Plan, seed: int, options: argparse.Namespace
) -> tuple[Kernels, Kernels]:
    """Plain factors, and the same corrected within exactly the error they have."""
    plain, calm = dict[str, Factors](), dict[str, Factors]()
    converged = [0, 0]
    for name, choice in plan.choices.items():
        site = next(s for s in job.sites if s.name == name)
        window = site.shape[2:]
        spatial = window if choice.form == "cp4" else (prod(window),)
        target, rng = Target.of(site.kernel, spatial), np.random.default_rng((seed, *digits(name)))
        found = alternating(target, choice.rank, rng, options.sweeps, settled=options.settled)
        least = preserve(
            target,
            found.factors,
            bound=found.objective,
            sweeps=options.sweeps,
            tolerance=CORRECTED,
        )
        plain[name], calm[name] = found.factors, least.factors
        converged[0] += found.converged
        converged[1] += least.converged
    return _chained(job, plan, plain, converged[0]), _chained(job, plan, calm, converged[1])


def _chained(job: Run, plan: Plan, factors: Mapping[str, Factors], converged: int) -> Kernels:
    sites = {s.name: s for s in job.sites}
    chains = {
        n: FORMS[plan.choices[n].form].stages(f, sites[n].shape, sites[n].geometry)
        for n, f in factors.items()
    }
    return Kernels(factors, chains, converged)


def by_inputs(job: Run, plan: Plan) -> Kernels:
    """The library's own fits; the job cannot forget what it learns for them."""
    learn_inputs(job, list(plan.choices))
    chains = job.fits.chains(plan)
    converged = sum(fit.outcome is Outcome.CONVERGED for fit in chains.fits.values())
    factors = {name: fit.factors[0] for name, fit in chains.fits.items()}
    return Kernels(factors, chains.by_site, converged)


def fitted(
    job: Run, seed: int, options: argparse.Namespace, folder: Path
) -> Iterator[tuple[str, Row]]:
    """Every fit, written as `<fit>.onnx`, with what is to be said of its factors."""
    plan, sites = forced_plan(job), {s.name: s for s in job.sites}
    with threadpool_limits(1):
        made = dict(zip(FITS[:2], by_weights(job, plan, seed, options), strict=True))
        if "inputs" in options.fit:
            made["inputs"] = by_inputs(job, plan)
    for fit, kernels in made.items():
        job.builder.write(folder / f"{fit}.onnx", plan, kernels.chains)
        facts: Row = {
            "errors": {n: kernel_error(sites[n], f) for n, f in kernels.factors.items()},
            "sensitivities": {n: sensitivity(f) for n, f in kernels.factors.items()},
            "converged": kernels.converged,
        }
        yield fit, facts


def trained(
    fit: str, rate: Rate, seed: int, folder: Path, job: Run, options: argparse.Namespace
) -> tuple[Path, Finetuned]:
    """One training, and the model it wrote."""
    optimizer, highest = rate
    output = folder / f"{fit}.{optimizer}-{highest:g}.onnx"
    data = options.data / "cifar10"
    recipe = Recipe(
        epochs=options.epochs,
        batch_size=128,
        learning_rate=highest,
        optimizer=optimizer,
        temperature=2.0,
        seed=seed,
    )
    asked = FinetuneRequest(
        reference=job.model.path,
        candidate=folder / f"{fit}.onnx",
        output=output,
        sources=Sources(
            data=(str(data / "test.npz"),),
            train=(f"{data / 'train.npz'}[:{options.images}]",),
            preprocess="cifar10",
        ),
        limits=Limits(),
        target=CPU,
    )
    return output, finetune(asked, recipe)


def told(rate: Rate, found: Finetuned) -> Row:
    """The figures of one training."""
    best = found.distilled.trained.epochs[found.distilled.trained.best]
    return {
        "optimizer": rate[0],
        "learning_rate": rate[1],
        "held_out": best.held_out,
        "best_epoch": best.number,
        "stopped": found.distilled.trained.stopped,
        "epochs": [asdict(epoch) for epoch in found.distilled.trained.epochs],
        "top1_untrained": found.measured.before.after,
        "top1": found.measured.after.after,
        "drop": found.measured.after.drop,
        "drop_ci": found.measured.after.drop_ci,
        "seconds": found.seconds,
    }


def one_seed(seed: int, options: argparse.Namespace) -> Row:
    """All fits of a seed at all rates, and the trained `epc` against the trained `als`."""
    rows, chosen = dict[str, Row](), dict[str, Path]()
    with uniform_job(options.model, options.form, options.ratio, options.data, seed) as job:
        for fit, facts in fitted(job, seed, options, job.folder):
            trainings = []
            for rate in options.rate:
                path, found = trained(fit, rate, seed, job.folder, job, options)
                trainings.append((path, told(rate, found)))
                line = {k: v for k, v in trainings[-1][1].items() if k != "epochs"}
                print(json.dumps({"seed": seed, "fit": fit, **line}), file=sys.stderr, flush=True)
            chosen[fit], best = min(trainings, key=lambda pair: pair[1]["held_out"])
            rows[fit] = facts | {"chosen": best, "all": [row for _, row in trainings]}
        gain = gains(job, chosen["als"], chosen["epc"])
    als, epc = (np.array(list(rows[fit]["errors"].values())) for fit in FITS[:2])
    return {
        "seed": seed,
        "largest_error_difference": float(np.abs(epc / als - 1).max()),
        "reduction": _reduction(rows["als"]["sensitivities"], rows["epc"]["sensitivities"]),
        **gain,
        "fits": rows,
    }


def gains(job: Run, als: Path, epc: Path) -> Row:
    """Top-1 of one trained model less the other's, with the paired 95 % interval."""
    assert job.inputs.samples is not None
    samples, top1 = job.inputs.samples, metrics.TOP1
    judge = Evaluation(job.judged_runner(als), samples, top1, job.inputs.batching)
    found = judge.measure(job.judged_runner(epc))
    low, high = found.drop_ci
    return {"epc_gain": -found.drop, "epc_gain_ci": (-high, -low), "judged": found.samples}


def _reduction(before: Mapping[str, float], after: Mapping[str, float]) -> Row:
    """How many times sensitivity fell, over the kernels."""
    times = [before[name] / after[name] for name in before]
    return {"least": min(times), "median": statistics.median(times), "most": max(times)}


def summary(rows: Sequence[Row]) -> Row:
    """Means over the seeds and their spread (standard deviation)."""
    found: Row = {"epc_gain": _spread([row["epc_gain"] for row in rows])}
    for fit in rows[0]["fits"]:
        fits = [row["fits"][fit] for row in rows]
        found[fit] = {
            name: _spread([statistics.median(f[name].values()) for f in fits])
            for name in ("errors", "sensitivities")
        }
        for name in ("top1_untrained", "top1", "held_out"):
            found[fit][name] = _spread([f["chosen"][name] for f in fits])
        found[fit]["top1_by_rate"] = {
            f"{trainings[0]['optimizer']} {trainings[0]['learning_rate']:g}": _spread(
                [training["top1"] for training in trainings]
            )
            for trainings in zip(*(f["all"] for f in fits), strict=True)
        }
    return found


def _spread(values: Sequence[float]) -> Row:
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.mean(values), "spread": spread, "each": list(values)}


def _rate(text: str) -> Rate:
    optimizer, _, number = text.partition(":")
    if optimizer not in OPTIMIZERS:
        raise argparse.ArgumentTypeError(f"{text}: write it as {OPTIMIZERS[0]}:1e-3")
    return optimizer, float(number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet20", choices=("resnet20", "resnet56"))
    parser.add_argument("--form", default="cp3", choices=("cp3", "cp4"))
    parser.add_argument("--ratio", type=float, default=1.0, help="rank over output channels")
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--fit", nargs="*", choices=FITS[2:], default=[], help="beside als, epc")
    parser.add_argument("--images", type=int, default=12000, help="to train on")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rate", type=_rate, nargs="+", default=RATES, help="such as adamw:1e-3")
    parser.add_argument("--sweeps", type=int, default=5000, help="of either fit, at most")
    parser.add_argument(
        "--settled", type=float, default=1e-5, help="gain of als over ten sweeps that ends it"
    )
    parser.add_argument("--data", type=Path, default=DATA, help="default: $ONNXCP_DATA")
    options = parser.parse_args()
    rows = [one_seed(seed, options) for seed in options.seed]
    setting = {k: getattr(options, k) for k in ("model", "form", "ratio", "images", "epochs")}
    print(json.dumps(setting | {"summary": summary(rows), "seeds": rows}, indent=2))


if __name__ == "__main__":
    main()
