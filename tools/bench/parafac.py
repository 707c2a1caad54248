"""Time to one error on real kernels: our least squares against TensorLy's `parafac`.

Same kernel (the first convolution of a size in `--model`), rank = channels, threads and
random start. `parafac` sees the tensor [T, S, Y·X] in double precision and runs for at most
`--iterations` and `--seconds`, so that large kernels end before they have converged; ours
then runs until its error is no larger than what `parafac` reached. Prints JSON.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from tensorly.cp_tensor import cp_to_tensor
from tensorly.decomposition import parafac
from threadpoolctl import threadpool_limits

from onnxcp.chain import Kernel
from onnxcp.forms.solvers.cp_algebra import Factors, Target, balance, double, single
from onnxcp.forms.solvers.cp_als import extrapolated, least_squares, sweep
from onnxcp.forms.solvers.norm import relative_error
from onnxcp.graph import io, shapes, sites
from onnxcp.graph.input_specs import known_shapes

MODEL = Path(os.environ.get("ONNXCP_DATA", "../shared/data")) / "imagenet/resnet18.onnx"
TURNS = 3  # of ours, whose median counts: it is over too soon for one
PATIENCE = 10  # times TensorLy's budget, until ours gives up
Trace = list[tuple[float, float]]  # seconds since the start, relative error


class Ended(Exception):
    """The error is reached, or the time is up."""


def public(tensor: np.ndarray, start: Factors, iterations: int, seconds: float) -> Trace:
    """Time and error of every iteration of TensorLy."""
    trace: Trace = []
    begin = time.perf_counter()

    def watch(_: object, error: float) -> bool:
        trace.append((time.perf_counter() - begin, float(error)))
        return trace[-1][0] > seconds

    init = (None, [factor.copy() for factor in start])
    rank = start[0].shape[1]
    parafac(tensor, rank, n_iter_max=iterations, init=init, tol=1e-12, callback=watch)
    return trace[1:]  # the first is the error of the start


def ours(target: Target, start: Factors, goal: float, seconds: float) -> tuple[Trace, Factors]:
    """Time and error of every sweep until `goal`, and the factors it ended with.

    As `fit_least_squares`: extrapolated, in single precision until that sees the goal
    reached, then in double precision until it is.
    """
    trace: Trace = []
    begin, last = time.perf_counter(), balance(start)

    def run(tensor: Target, factors: Factors) -> None:
        def step(point: Factors) -> tuple[Factors, float]:
            nonlocal last
            last, error = sweep(tensor, point, least_squares)
            trace.append((time.perf_counter() - begin, error**0.5))
            if trace[-1][1] <= goal or trace[-1][0] > seconds:
                raise Ended
            return last, error

        with contextlib.suppress(Ended):
            extrapolated(step, factors, sweeps=10**6, tolerance=0.0)

    run(target.single(), single(last))
    run(target, double(last))
    return trace, last


def compare(
    kernel: Kernel, rank: int, iterations: int, seconds: float, seed: int
) -> dict[str, object]:
    """One kernel at one rank."""
    target = Target.of(kernel, (kernel[0, 0].size,))
    tensor = kernel.astype(np.float64).reshape(target.shape) / target.energy**0.5
    target = target.unit()
    rng = np.random.default_rng(seed)
    start = tuple(rng.standard_normal((size, rank)) for size in target.shape)
    theirs = public(tensor, start, iterations, seconds)
    goal = theirs[-1][1]
    runs = [ours(target, start, goal, PATIENCE * seconds) for _ in range(TURNS)]
    mine, factors = sorted(runs, key=lambda run: run[0][-1][0])[TURNS // 2]
    reached = relative_error(tensor, cp_to_tensor((None, factors)), None)  # from the difference
    return {
        "kernel": list(kernel.shape),
        "rank": rank,
        "parafac": {
            "seconds": theirs[-1][0],
            "iterations": len(theirs),
            "error": goal,
            "stopped": "iterations" if len(theirs) == iterations else "seconds or converged",
            "last_relative_fall": 1 - goal / theirs[-2][1] if len(theirs) > 1 else None,
        },
        "ours": {"seconds": mine[-1][0], "sweeps": len(mine), "error": reached},
        "reached": reached <= goal * (1 + 1e-4),
        "times_faster": theirs[-1][0] / mine[-1][0],
        "times_faster_per_iteration": (theirs[-1][0] / len(theirs)) / (mine[-1][0] / len(mine)),
    }


def kernels(model: Path, sizes: list[int]) -> dict[int, Kernel]:
    """The first square kernel of every size, with a window."""
    loaded = io.load(model)
    found, _ = sites.find(loaded.proto, shapes.infer(loaded.proto, known_shapes(loaded.inputs)))
    square = {s.shape[0]: s.kernel for s in reversed(found) if s.shape[0] == s.shape[1]}
    return {size: square[size] for size in sizes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each run of parafac")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows, cap = [], (options.iterations, options.seconds)
    with threadpool_limits(options.threads):
        for size, kernel in kernels(options.model, options.channels).items():
            print(f"{size} channels", file=sys.stderr)
            rows.append(compare(kernel, size, *cap, options.seed))
            print(json.dumps(rows[-1]), file=sys.stderr)
    limits = {"parafac_iterations": cap[0], "parafac_seconds": cap[1]}
    print(json.dumps({"threads": options.threads, "limits": limits, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
