"""What is left of a chain's accuracy once it is rounded to float16 or quantized to int8.

Every 3×3 kernel but the first becomes a `cp3` chain at rank = `--ratio` × output channels.
The factors come from four fits: under the norm of real activations; in the plain norm, with
error-preserving correction; by plain alternating least squares until it reaches the error
of those; and by TensorLy's `parafac`, as it returns them. Each is judged in float32, with
the chain's weights rounded to float16, and as static int8 by ONNX Runtime's tool: QDQ,
int8 weights per channel, uint8 activations, MinMax.

`int8 equalised` rescales the terms first, which leaves the float model as it is: every
channel behind the first 1×1 and behind the window takes up the same range on calibration
images, and the last 1×1 makes up for it. `int8 shared` leaves a part of the difference
behind the window to the last 1×1, whose weights it would coarsen: both get the root of it.
Prints JSON.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
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
from tensorly.decomposition import parafac
from threadpoolctl import threadpool_limits

from onnxcp import accuracy, files
from onnxcp.accuracy import Evaluation
from onnxcp.conv import Chain, Stage
from onnxcp.forms import FORMS
from onnxcp.forms.algebra import Factors, balance, sensitivity
from onnxcp.forms.algebra import Target as Tensor
from onnxcp.forms.als import least_squares, sweep
from onnxcp.forms.norm import relative_error
from onnxcp.inputs import Sources
from onnxcp.job import Job, Settings, open_job
from onnxcp.plan import Plan
from onnxcp.progress import silent
from onnxcp.providers import Target
from onnxcp.rewrite import rewrite, with_outputs
from onnxcp.sites import Site
from onnxcp.tensors import Feeds

DATA = Path(os.environ.get("ONNXCP_DATA", "../shared/data"))
FORM = FORMS["cp3"]
CALIBRATING, BATCH = 512, 64  # images for int8's ranges
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


def equalised(chain: Chain, found: tuple[np.ndarray, np.ndarray], share: float) -> Chain:
    """The same chain with equal ranges behind the first 1×1 and, to the power of `share`,
    behind the window; the rest of that difference is left to the last 1×1."""
    inputs, window, outputs = chain
    first, second = (np.where(f > 0, f, 1.0) for f in found)
    columns = np.abs(outputs.weight).max(axis=(0, 2, 3))
    columns = np.where(columns > 0, columns, 1.0)
    scale = second**share / columns ** (1 - share)
    scale /= np.exp(np.log(scale).mean())
    return (
        _times(inputs, 1 / first, 0),
        _times(window, first / scale, 0),
        _times(outputs, scale, 1),
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


def by_als(site: Site, rank: int, goal: float, sweeps: int) -> Factors:
    """Plain alternating least squares from random factors, until the relative error `goal`."""
    tensor = Tensor.of(site.kernel, (site.kernel[0, 0].size,))
    rng = np.random.default_rng(0)
    factors = balance([rng.standard_normal((size, rank)) for size in tensor.shape])
    for _ in range(sweeps):
        factors, error = sweep(tensor, factors, least_squares)
        if error <= goal**2 * tensor.energy:
            break
    return factors


def by_parafac(site: Site, rank: int, iterations: int) -> Factors:
    """What TensorLy gives for the kernel with its positions merged."""
    tensor = site.kernel.astype(np.float64).reshape(*site.shape[:2], -1)
    found = parafac(tensor, rank, n_iter_max=iterations, init="random", random_state=0)
    return tuple(found.factors)


def plain_error(site: Site, factors: Factors) -> float:
    return relative_error(site.kernel, FORM.reconstruct(factors, site.shape), None)


class Bench:
    """One model and ratio."""

    def __init__(self, job: Job, sweeps: int, iterations: int) -> None:
        self.job, self.sweeps, self.iterations = job, sweeps, iterations
        self.plan = Plan({name: made[0] for name, made in job.choices().items()})
        self.sites = {s.name: s for s in job.sites if s.name in self.plan.choices}
        original = job.judged_runner(job.model.path)
        assert job.inputs.samples is not None
        top1 = accuracy.METRICS["top1"]
        self.judge = Evaluation(original, job.inputs.samples, top1, job.inputs.batching)

    def top1(self, source: Path) -> float:
        return self.judge.measure(self.job.judged_runner(source)).after

    def float_top1(self, chains: Chains) -> float:
        path = self.job.folder / "float.onnx"
        files.save(built(self.job, chains), path)
        return self.top1(path)

    def int8_top1(self, chains: Chains) -> float:
        return self.top1(quantized(self.job, built(self.job, chains)))

    def fitted(self) -> dict[str, Factors]:
        """Factors as the library fits them, in the norm it knows at this moment."""
        return {n: self.job.fits.get(n, c).factors[0] for n, c in self.plan.choices.items()}

    def each(self, fit: Callable[[Site, int], Factors]) -> dict[str, Factors]:
        return {n: fit(s, self.plan.choices[n].rank) for n, s in self.sites.items()}

    def rows(self) -> Iterator[dict[str, object]]:
        """A row for every fit; the library's own under its norm of activations comes last,
        because it can not forget what it learned of them."""
        calm = self.fitted()
        goals = {n: plain_error(s, calm[n]) for n, s in self.sites.items()}
        yield {"fit": "original", "float32": float(self.judge.before.mean())} | {
            "int8": self.int8_top1({})
        }
        yield self.row("plain norm, corrected", calm, self.job.fits.chains(self.plan))
        als = self.each(lambda s, rank: by_als(s, rank, goals[s.name], self.sweeps))
        yield self.row("plain least squares", als)
        public = self.each(lambda s, rank: by_parafac(s, rank, self.iterations))
        yield self.row("parafac", public)
        self.job.calibrate(list(self.sites))
        yield self.row("activations", self.fitted(), self.job.fits.chains(self.plan))

    def row(
        self, fit: str, factors: Mapping[str, Factors], made: Chains | None = None
    ) -> dict[str, object]:
        """One fit's accuracies; its chains are made of the factors where none are given."""
        sites = self.sites
        chains = made or {
            n: FORM.stages(f, sites[n].shape, sites[n].geometry) for n, f in factors.items()
        }
        found = ranges(self.job, chains)
        even = {
            share: {n: equalised(c, found[n], share) for n, c in chains.items()}
            for share in (1.0, 0.5)
        }
        errors = [plain_error(site, factors[n]) for n, site in sites.items()]
        top1 = {
            "float32": self.float_top1(chains),
            "float16": self.float_top1({n: rounded(c) for n, c in chains.items()}),
            "int8": self.int8_top1(chains),
            "int8 equalised": self.int8_top1(even[1.0]),
            "int8 shared": self.int8_top1(even[0.5]),
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
    folder = options.data / "cifar10"
    sources = Sources(
        data=(str(folder / "test.npz"),),
        calibration=(str(folder / "calibration.npz"),),
        preprocess="cifar10",
    )
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        settings = Settings(
            model=folder / f"{model}.onnx",
            output=Path(temporary) / "out.onnx",
            target=Target.named("cpu", 1),
            sources=sources,
            form=FORM.name,
            ranks=(f"*={ratio}c",),
            exclude=("conv1",),
        )
        with open_job(settings, silent) as job, threadpool_limits(1):
            for row in Bench(job, options.sweeps, options.iterations).rows():
                rows.append({"model": model, "ratio": ratio} | row)
                print(json.dumps(rows[-1]), file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", choices=("resnet20", "resnet56"))
    parser.add_argument("--ratio", type=float, action="append", help="repeatable; default 2")
    parser.add_argument("--data", type=Path, default=DATA, help="default: $ONNXCP_DATA")
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
