"""Cost of one sweep of alternating least squares, against the matrix products inside it.

Prints JSON. `over_products` is the time of a sweep over that of its two matrix products;
`peak_over_kernel` the most memory a sweep allocates, in sizes of the kernel, factors
excluded. TensorLy's `parafac` is timed beside it, per iteration, on the same tensor.
"""

import argparse
import json
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from tensorly.decomposition import parafac
from threadpoolctl import threadpool_limits

from onnxcp.forms.solvers.cp_algebra import Factors, Target
from onnxcp.forms.solvers.cp_als import least_squares, sweep


def median_seconds(subjects: list[Callable[[], object]], turns: int) -> list[float]:
    """Median times of callables run in turns."""
    taken: list[list[float]] = [[] for _ in subjects]
    for _ in range(turns + 1):
        for subject, times in zip(subjects, taken, strict=True):
            start = time.perf_counter()
            subject()
            times.append(time.perf_counter() - start)
    return [float(np.median(times[1:])) for times in taken]


def peak_bytes(run: Callable[[], object]) -> int:
    """Most memory held during a call beyond what was held before."""
    tracemalloc.start()
    run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def products(target: Target, rank: int, rng: np.random.Generator) -> Callable[[], object]:
    """The two matrix products of a sweep and nothing else."""
    wide = rng.standard_normal((target.flat.shape[1], rank))
    pairs = rng.standard_normal((len(target.flat), rank))

    def run() -> object:
        return target.flat @ wide, target.flat.T @ pairs

    return run


def measure(channels: int, window: int, rank: int, form: str, turns: int) -> dict[str, object]:
    """One kernel of channels × channels × window × window at one rank."""
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((channels, channels, window, window))
    spatial = (window, window) if form == "cp4" else (window * window,)
    target = Target.of(kernel, spatial)
    factors: Factors = tuple(rng.standard_normal((size, rank)) for size in target.shape)
    tensor = kernel.reshape(target.shape)

    def one_sweep() -> object:
        return sweep(target, factors, least_squares)

    def one_iteration() -> object:
        start = (None, [f.copy() for f in factors])
        return parafac(tensor, rank, n_iter_max=1, init=start, tol=0)

    ours, theirs, bound = median_seconds(
        [one_sweep, one_iteration, products(target, rank, rng)], turns
    )
    held = sum(f.nbytes for f in factors)
    return {
        "kernel": [channels, channels, window, window],
        "form": form,
        "rank": rank,
        "sweep_ms": 1e3 * ours,
        "products_ms": 1e3 * bound,
        "over_products": ours / bound,
        "peak_over_kernel": (peak_bytes(one_sweep) - held) / kernel.nbytes,
        "tensorly_iteration_ms": 1e3 * theirs,
        "tensorly_peak_over_kernel": (peak_bytes(one_iteration) - held) / kernel.nbytes,
        "times_faster_than_tensorly": theirs / ours,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--window", type=int, default=3)
    parser.add_argument("--rank", type=int, default=256)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with threadpool_limits(options.threads):
        rows = [
            measure(options.channels, options.window, options.rank, form, options.turns)
            for form in ("cp3", "cp4")
        ]
    print(json.dumps({"threads": options.threads, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
