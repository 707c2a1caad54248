"""Patches are what a window sees, and the statistics of a stream those of all its samples.

Oracles: ONNX Runtime's convolutions, and numpy on all samples at once.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from tiny import chain_model

from onnxcp.chain import Geometry, Sizes
from onnxcp.errors import DataError, UsageError
from onnxcp.fitting import statistics
from onnxcp.fitting.statistics import MEMORY, Statistics, collect, patches
from onnxcp.forms.grouped import parts
from onnxcp.forms.solvers.norm import Norm, flat
from onnxcp.graph.input_specs import Feeds
from onnxcp.graph.layers import Layer
from onnxcp.graph.sites import Site
from onnxcp.latency.candidates import dense_stage
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner

CPU = Target.named("cpu", 1)


def site(
    shape: Sizes,
    geometry: Geometry | None = None,
    *,
    op: str = "Conv",
    group: int = 1,
    name: str = "a",
    tensor: str = "",
    bias_computed: bool = False,
) -> Site:
    kernel = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    geometry = Geometry(dimensions=len(shape) - 2) if geometry is None else geometry
    layer = Layer(name, op, shape, group=group)
    tensor, source = tensor or f"{name}.weight", f"{name}.input"
    image = None
    return Site(layer, 0, kernel, None, geometry, image, 1, tensor, source, bias_computed)


def inputs(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# --- patches

# kernel, groups, geometry, image: few enough positions for all to be taken
CONVOLUTIONS: dict[str, tuple[Sizes, int, Geometry, Sizes]] = {
    "2-D": ((6, 4, 3, 2), 1, Geometry(), (7, 8)),
    "pointwise": ((6, 4, 1, 1), 1, Geometry(), (5, 8)),
    "pointwise strided": ((6, 4, 1, 1), 1, Geometry((2, 3)), (9, 8)),
    "uneven pads": ((6, 4, 3, 3), 1, Geometry(pads=(0, 1, 2, 3)), (5, 4)),
    "strided": ((6, 4, 3, 3), 1, Geometry((2, 3), pads=(1, 0, 1, 2)), (9, 11)),
    "dilated": ((6, 4, 3, 2), 1, Geometry(dilations=(2, 3), pads=(2, 0, 1, 3)), (8, 7)),
    "all of it": ((6, 4, 2, 3), 1, Geometry((2, 1), (1, 2), (1, 2, 0, 1)), (7, 9)),
    "groups": ((6, 2, 3, 3), 2, Geometry(pads=(1, 1, 1, 1)), (7, 8)),
    "groups strided": ((6, 4, 3, 2), 3, Geometry((2, 1), pads=(1, 0, 0, 1)), (7, 8)),
    "1-D": ((6, 4, 3), 1, Geometry(pads=(1, 2)), (20,)),
    "1-D all": ((6, 2, 4), 2, Geometry((3,), (2,), (0, 5)), (29,)),
    "3-D": ((6, 4, 2, 3, 2), 1, Geometry(dimensions=3), (4, 5, 4)),
    "3-D all": ((6, 2, 2, 3, 2), 2, Geometry((2, 1, 2), (1, 2, 1), (1, 2, 0, 0, 2, 1)), (5, 6, 5)),
}


def computed(made: Site, x: np.ndarray) -> np.ndarray:
    """What ONNX Runtime makes of x."""
    model = chain_model((dense_stage(made),), x.shape, x.dtype, made.layer.op)
    result: np.ndarray = open_runner(model, CPU)({"x": x})[0]
    return result


def multiplied(made: Site, x: np.ndarray, samples: int = 1) -> np.ndarray:
    """The kernel times the patches: [T, patches]."""
    seen = patches(made, x, np.random.default_rng(0), samples)
    rows = [flat(k) @ p.T for k, p in zip(parts(made.kernel, made.group), seen, strict=True)]
    return np.concatenate(rows)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_kernel_times_patches_is_the_convolution(kind: str) -> None:
    shape, group, geometry, image = CONVOLUTIONS[kind]
    made, x = site(shape, geometry, group=group), inputs(2, shape[1] * group, *image)
    wanted = np.moveaxis(computed(made, x), 1, 0).reshape(shape[0], -1)
    assert wanted.shape[1] <= 2 * statistics.FEWEST
    np.testing.assert_allclose(multiplied(made, x), wanted, rtol=1e-4, atol=1e-4)


def test_negative_pads_cut_the_image() -> None:
    """ONNX Runtime refuses them: it gets what is left of the image."""
    made, x = site((6, 4, 3, 3), Geometry(pads=(-1, 2, 1, -3))), inputs(2, 4, 8, 9)
    left = site((6, 4, 3, 3), Geometry(pads=(0, 2, 1, 0)))
    wanted = np.moveaxis(computed(left, x[:, :, 1:, :-3]), 1, 0).reshape(6, -1)
    np.testing.assert_allclose(multiplied(made, x), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["2-D", "groups", "1-D all", "3-D all", "all of it"])
def test_of_many_positions_some_are_taken_the_same_in_every_image(kind: str) -> None:
    shape, group, geometry, image = CONVOLUTIONS[kind]
    image = tuple(12 if len(image) == 3 else 400 // len(image) ** 2 for _ in image)
    made, x = site(shape, geometry, group=group), inputs(2, shape[1] * group, *image)
    whole = np.moveaxis(computed(made, x), 1, 0).reshape(shape[0], 2, -1)
    found = multiplied(made, x, samples=10**6).reshape(shape[0], 2, -1)
    assert found.shape[2] == statistics.FEWEST < whole.shape[2]
    picked = statistics._picked(whole.shape[2], 1, 10**6, np.random.default_rng(0))
    np.testing.assert_allclose(found, whole[:, :, picked], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("op", "shape"), [("Gemm", (5, 4)), ("MatMul", (5, 4)), ("MatMul", (2, 3, 5, 4))]
)
def test_a_kernel_times_rows_is_the_product(op: str, shape: Sizes) -> None:
    made, x = site((6, 4), op=op), inputs(*shape)
    np.testing.assert_allclose(
        multiplied(made, x), computed(made, x).reshape(-1, 6).T, rtol=1e-4, atol=1e-4
    )


# --- statistics


def stream(x: np.ndarray, size: int) -> Iterator[Feeds]:
    for start in range(0, len(x), size):
        yield {"x": x[start : start + size]}


def collected(
    folder: Path,
    made: Sequence[Site],
    x: np.ndarray,
    *,
    size: int = 4,
    memory: int = MEMORY,
    correct_bias: bool = True,
    run: Callable[[Feeds], dict[str, np.ndarray]] | None = None,
) -> dict[str, Statistics]:
    """Statistics of sites that all read `x`, or what `run` makes of it."""

    def same(feeds: Feeds) -> dict[str, np.ndarray]:
        return {s.source: feeds["x"] for s in made}

    options = {"correct_bias": correct_bias, "memory": memory, "shrinks": False}
    return collect(run or same, stream(x, size), len(x), made, folder, **options)  # type: ignore[arg-type]


def kept(found: Statistics) -> list[np.ndarray]:
    return [np.load(path) for path in found.covariances]


STREAMED = {
    "2-D": (site((6, 3, 3, 2), Geometry(pads=(1, 0, 1, 1))), (3, 6, 7)),
    "groups": (site((6, 3, 3, 2), group=2), (6, 6, 7)),
    "1-D": (site((6, 3, 4), Geometry((2,))), (3, 30)),
    "3-D": (site((6, 2, 2, 2, 2)), (2, 4, 4, 5)),
    "MatMul": (site((6, 4), op="MatMul"), (7, 4)),
    "Gemm": (site((6, 4), op="Gemm"), (4,)),
}


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("size", [1, 4, 12])
@pytest.mark.parametrize("kind", STREAMED)
def test_a_stream_has_the_covariance_of_all_its_patches(
    kind: str, size: int, centred: bool, tmp_path: Path
) -> None:
    made, shape = STREAMED[kind]
    x = 2 + inputs(12, *shape)
    found = collected(tmp_path, [made], x, size=size, correct_bias=centred)[made.tensor]
    seen = patches(made, x, np.random.default_rng(0), len(x)).astype(np.float64)
    for number, covariance in enumerate(kept(found)):
        mean = seen[number].mean(axis=0) if centred else 0.0
        rows = seen[number] - mean
        wanted = rows.T @ rows / len(rows)
        np.testing.assert_allclose(covariance, wanted, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(covariance, covariance.T)
        if centred:
            np.testing.assert_allclose(found.means["a"][number], mean, rtol=1e-5, atol=1e-5)
    assert bool(found.means) is centred


def test_a_bias_that_can_not_be_changed_leaves_the_mean_in(tmp_path: Path) -> None:
    made = site((6, 3, 3, 3), bias_computed=True)
    x = 2 + inputs(6, 3, 5, 5)
    found = collected(tmp_path, [made], x)[made.tensor]
    assert not found.means
    seen = patches(made, x, np.random.default_rng(0), 6)[0].astype(np.float64)
    np.testing.assert_allclose(kept(found)[0], seen.T @ seen / len(seen), rtol=1e-4, atol=1e-4)


def test_equal_statistics_have_equal_hashes(tmp_path: Path) -> None:
    made, x = site((6, 3, 3, 3)), inputs(6, 3, 5, 5)
    first, again, other = (collected(tmp_path, [made], v)[made.tensor] for v in (x, x, 2 * x))
    assert first.sha256 == again.sha256 != other.sha256


# --- memory

SMALL, LARGE = site((6, 3, 2, 2), name="small"), site((6, 4, 3, 3), name="large")
WHOLE = 4 * ((3 * 4) ** 2 + (4 * 9) ** 2)
CHANNELS = 4 * (3**2 + 4**2)


def both(feeds: Feeds) -> dict[str, np.ndarray]:
    return {SMALL.source: feeds["x"][:, :3], LARGE.source: feeds["x"]}


@pytest.mark.parametrize(
    ("memory", "sides"),
    [(WHOLE, (12, 36)), (WHOLE - 1, (12, 4)), (4 * (12**2 + 4**2) - 1, (3, 4)), (CHANNELS, (3, 4))],
)
def test_a_memory_limit_keeps_the_largest_for_channels_alone(
    memory: int, sides: tuple[int, int], tmp_path: Path
) -> None:
    found = collected(tmp_path, [SMALL, LARGE], inputs(6, 4, 6, 6), memory=memory, run=both)
    assert tuple(len(kept(found[s.tensor])[0]) for s in (SMALL, LARGE)) == sides


def test_a_memory_limit_that_can_not_be_kept_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"take {CHANNELS / 2**30:.3g} GB"):
        collected(tmp_path, [SMALL, LARGE], inputs(6, 4, 6, 6), memory=CHANNELS - 1, run=both)


@pytest.mark.parametrize("group", [1, 2])
def test_channels_alone_have_the_mean_covariance_of_the_positions(
    group: int, tmp_path: Path
) -> None:
    made = site((6, 4, 3, 3), group=group)
    x = 2 + inputs(6, 4 * group, 6, 6)
    found = collected(tmp_path, [made], x, memory=4 * group * 4**2)[made.tensor]
    seen = patches(made, x, np.random.default_rng(0), 6).astype(np.float64)
    for number, covariance in enumerate(kept(found)):
        rows = (seen[number] - seen[number].mean(axis=0)).reshape(-1, 4)
        np.testing.assert_allclose(covariance, rows.T @ rows / len(rows), rtol=1e-4, atol=1e-4)


# --- sites that share a kernel


def shared(feeds: Feeds) -> dict[str, np.ndarray]:
    """The second site of a pair reads fewer, larger numbers."""
    return {"a.input": feeds["x"], "b.input": 3 * feeds["x"][:, :, :4, :4]}


PAIR = [site((6, 3, 3, 3), name=name, tensor="w") for name in "ab"]


def test_sites_that_share_a_kernel_pool_their_patches(tmp_path: Path) -> None:
    x = inputs(6, 3, 6, 6)
    found = collected(tmp_path, PAIR, x, correct_bias=False, run=shared)
    assert found.keys() == {"w"}
    seen = [
        patches(s, shared({"x": x})[s.source], np.random.default_rng(0), 6)[0].astype(np.float64)
        for s in PAIR
    ]
    rows = np.concatenate(seen)
    np.testing.assert_allclose(kept(found["w"])[0], rows.T @ rows / len(rows), rtol=1e-4, atol=1e-4)


def test_sites_that_share_a_kernel_have_means_of_their_own(tmp_path: Path) -> None:
    x = 2 + inputs(6, 3, 6, 6)
    means = collected(tmp_path, PAIR, x, run=shared)["w"].means
    assert means.keys() == {"a", "b"}
    assert 2 < np.median(means["b"] / means["a"]) < 4


def test_one_bias_that_can_not_be_changed_leaves_the_mean_in_for_all(tmp_path: Path) -> None:
    pair = [PAIR[0], site((6, 3, 3, 3), name="b", tensor="w", bias_computed=True)]
    assert not collected(tmp_path, pair, inputs(6, 3, 6, 6), run=shared)["w"].means


def test_sites_that_share_a_kernel_are_kept_alike(tmp_path: Path) -> None:
    """Room for the whole covariance of one of them is not enough."""
    memory = 4 * ((3 * 9) ** 2 + 3**2)
    found = collected(tmp_path, PAIR, inputs(6, 3, 6, 6), memory=memory, run=shared)
    assert kept(found["w"])[0].shape == (3, 3)


# --- inputs that are wrong or poor


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("centred", [True, False])
def test_activations_that_are_not_finite_are_refused(
    wrong: float, centred: bool, tmp_path: Path
) -> None:
    x = inputs(6, 3, 6, 6)
    x[3, 1, 2, 2] = wrong
    with pytest.raises(DataError, match="a: its inputs are NaN or infinite"):
        collected(tmp_path, [site((6, 3, 3, 3))], x, correct_bias=centred)


def test_no_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no samples"):
        collected(tmp_path, [site((6, 3, 3, 3))], inputs(0, 3, 6, 6))


def test_dead_channels_give_finite_statistics(tmp_path: Path) -> None:
    x = inputs(6, 3, 6, 6)
    x[:, 1] = 0
    found = collected(tmp_path, [site((6, 3, 3, 3))], x)["a.weight"]
    (covariance,) = kept(found)
    assert np.isfinite(covariance).all()
    assert not covariance.reshape(9, 3, 9, 3)[:, 1].any()
    norm = Norm.of(covariance)
    assert norm is not None
    assert np.linalg.eigvalsh(norm.covariance).min() > 0


@pytest.mark.parametrize("value", [0.0, 3.0, 0.39384615])
def test_inputs_that_never_vary_are_measured_in_the_plain_norm(
    value: float, tmp_path: Path
) -> None:
    x = np.full((6, 3, 6, 6), value, np.float32)
    found = collected(tmp_path, [site((6, 3, 3, 3))], x)["a.weight"]
    assert Norm.of(kept(found)[0]) is None
    np.testing.assert_allclose(found.means["a"], value, rtol=1e-5)


def test_half_precision_activations_do_not_overflow(tmp_path: Path) -> None:
    x = (300 * inputs(6, 3, 6, 6)).astype(np.float16)
    found = collected(tmp_path, [site((6, 3, 3, 3))], x)["a.weight"]
    assert np.isfinite(kept(found)[0]).all()


def test_what_a_site_gets_does_not_depend_on_which_others_are_looked_at(tmp_path: Path) -> None:
    """Of 19 × 19 positions 64 are drawn; the memory is shared out among all sites."""
    x, limit = inputs(32, 4, 20, 20), WHOLE - 1
    together = collected(tmp_path, [SMALL, LARGE], x, memory=limit, run=both)[SMALL.tensor]
    options = {"among": [SMALL, LARGE], "memory": limit, "shrinks": False}
    alone = collect(both, stream(x, 4), len(x), [SMALL], tmp_path, **options)[SMALL.tensor]  # type: ignore[arg-type]
    assert together.sha256 == alone.sha256
