"""Laws that every form obeys: its chain is the convolution, its fits are honest and stable."""

import math
from dataclasses import replace

import numpy as np
import pytest
from onnx.reference.ops.op_conv import Conv

from onnxcp.chain import Geometry, Stage, cost, with_bias
from onnxcp.forms import DRAFT, FORMS, Effort, Outcome
from onnxcp.forms.solvers.norm import Norm

GEOMETRIES = {
    "plain": Geometry(),
    "same padding": Geometry(pads=(1, 2, 1, 2)),
    "stride 2": Geometry(strides=(2, 2), pads=(1, 1, 1, 1)),
    "uneven stride": Geometry(strides=(2, 1)),
    "dilated": Geometry(dilations=(2, 3), pads=(2, 3, 2, 3)),
    "uneven pads": Geometry(pads=(0, 1, 2, 3)),
}
SHAPES = {
    "3×5": (6, 4, 3, 5),
    "more inputs than outputs": (3, 7, 3, 3),
    "more outputs than inputs": (9, 2, 5, 5),
    "one input channel": (5, 1, 3, 3),
}
TAKEN = {
    "a matrix": (7, 5),
    "1×1": (5, 8, 1, 1),
    "one dimension": (6, 5, 3),
    "two dimensions": (16, 12, 3, 3),
    "three dimensions": (4, 6, 2, 3, 2),
}
UNLIKE = [(8, 8), (8, 12, 3), (12, 6, 3, 3), (5, 16, 3, 3), (16, 16, 1, 3)]
ROUNDED = 1e-9  # relative: far above n·eps of the sums here, far below what a law is about
EXACT = 1e-11  # relative error: what a fit makes exact is exact to 1e-13 in the plain norm
CP_FORMS = pytest.mark.parametrize("form", [FORMS["cp3"], FORMS["cp4"]], ids=["cp3", "cp4"])
ALL_FORMS = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def run(chain, x):
    """Evaluate with the ONNX reference evaluator: an oracle that shares no code with us."""
    for stage in chain:
        g = stage.geometry
        if not g.dimensions:
            x = x @ stage.weight.T
            continue
        slide = {"strides": g.strides, "dilations": g.dilations, "pads": g.pads}
        x = Conv.eval(x, stage.weight, stage.bias, group=stage.group, **slide)
    return x


def full(inputs, places, seed=0):
    """The norm of whole patches whose variances differ a thousandfold."""
    return _norm(inputs * places, seed)


def by_channel(inputs, places, seed=0):
    return _norm(inputs, seed)


def _norm(size, seed):
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((3 * size, size)) * np.logspace(-1.5, 0, size)
    mixed = mixed @ np.linalg.qr(rng.standard_normal((size, size)))[0]
    return Norm.of(mixed.T @ mixed / len(mixed))


NORMS = {"plain": lambda *_: None, "patches": full, "channels": by_channel}


def skip_refused(form, shape):
    if form.refuses(shape) is not None:
        pytest.skip(form.refuses(shape))


def planted(form, shape, rank, seed=0):
    """A kernel that the form can write exactly at `rank`."""
    factors = form.draw(shape, rank, np.random.default_rng(seed))
    return form.reconstruct(factors, shape)


@ALL_FORMS
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no bias"])
def test_chain_equals_the_convolution_with_the_reconstructed_kernel(
    form, geometry, shape, has_bias
):
    rng = np.random.default_rng(0)
    factors, x = form.draw(shape, 3, rng), rng.standard_normal((2, shape[1], 13, 14))
    bias = rng.standard_normal(shape[0]) if has_bias else None
    dense = Stage("dense", form.reconstruct(factors, shape), geometry, bias=bias)
    chain = with_bias(form.stages(factors, shape, geometry), bias)
    np.testing.assert_allclose(run(chain, x), run([dense], x), rtol=0, atol=1e-10)


@ALL_FORMS
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_planted_rank_is_recovered(form, shape):
    kernel = planted(form, shape, rank=2)
    fit = form.fit(
        kernel, 2, None, np.random.default_rng(1), Effort(finish=2000, tolerance=1e-6), None
    )
    assert fit.error < 0.02  # the correction gives up a hundredth of the error it was given
    assert fit.outcome is Outcome.CONVERGED


@ALL_FORMS
def test_the_error_reported_is_the_error_of_the_reconstruction(form):
    kernel = np.random.default_rng(0).standard_normal((8, 6, 3, 3))
    fit = form.fit(kernel, 10, None, np.random.default_rng(0), Effort(), None)
    rebuilt = form.reconstruct(fit.factors, kernel.shape)
    error = np.linalg.norm(kernel - rebuilt) / np.linalg.norm(kernel)
    assert fit.error == pytest.approx(error, rel=1e-9)
    assert fit.sensitivity_after == pytest.approx(form.sensitivity(fit.factors), rel=1e-9)


@ALL_FORMS
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_the_factors_of_a_fit_are_never_more_sensitive_than_those_before(form, norm):
    kernel = np.random.default_rng(0).standard_normal((9, 6, 3, 3))
    fit = form.fit(kernel, 5, norm(6, 9), np.random.default_rng(0), Effort(), None)
    assert fit.sensitivity_after <= 1.01 * fit.sensitivity_before * (1 + ROUNDED)


@CP_FORMS
def test_correction_lowers_sensitivity_and_keeps_the_error(form):
    kernel = np.random.default_rng(0).standard_normal((16, 16, 3, 3))
    rough = form.fit(
        kernel, 24, None, np.random.default_rng(0), Effort(corrections=1, slack=0.0), None
    )
    calm = form.fit(kernel, 24, None, np.random.default_rng(0), Effort(), None)
    assert calm.sensitivity_after < calm.sensitivity_before / 2
    assert calm.error <= rough.error * 1.011


@ALL_FORMS
def test_the_same_seed_gives_the_same_factors(form):
    kernel = np.random.default_rng(0).standard_normal((8, 6, 3, 3))
    one, two = (
        form.fit(kernel, 5, None, np.random.default_rng(7), Effort(), None) for _ in range(2)
    )
    for a, b in zip(one.factors, two.factors, strict=True):
        np.testing.assert_array_equal(a, b)


@ALL_FORMS
def test_error_falls_with_rank(form):
    kernel = np.random.default_rng(0).standard_normal((12, 10, 3, 3))
    ranks = [r for r in (2, 4, 8, 12, 16, 32) if r <= form.largest(kernel.shape)]
    errors = [
        form.fit(kernel, r, None, np.random.default_rng(0), Effort(), None).error for r in ranks
    ]
    assert errors == sorted(errors, reverse=True)


@ALL_FORMS
def test_a_zero_kernel_is_fitted_by_finite_factors(form):
    fit = form.fit(np.zeros((4, 4, 3, 3)), 4, None, np.random.default_rng(0), Effort(), None)
    assert all(np.isfinite(f).all() for f in fit.factors)
    assert np.abs(form.reconstruct(fit.factors, (4, 4, 3, 3))).max() == 0


@ALL_FORMS
def test_dead_channels_do_not_break_a_fit(form):
    kernel = np.random.default_rng(0).standard_normal((8, 8, 3, 3))
    kernel[2:6], kernel[:, 5:] = 0, 0
    fit = form.fit(kernel, 16, None, np.random.default_rng(0), Effort(), None)
    assert fit.error < 0.2
    assert fit.outcome is not Outcome.DIVERGED


@ALL_FORMS
def test_a_rank_beyond_what_the_kernel_needs_is_exact(form):
    kernel = np.random.default_rng(0).standard_normal((3, 2, 3, 3))
    fit = form.fit(kernel, 24, None, np.random.default_rng(0), Effort(), None)
    assert fit.error < 0.02


@ALL_FORMS
def test_scale_of_the_kernel_does_not_matter(form):
    kernel = np.random.default_rng(0).standard_normal((8, 6, 3, 3))
    errors = [
        form.fit(kernel * scale, 6, None, np.random.default_rng(0), Effort(), None).error
        for scale in (1e-30, 1e-12, 1.0, 1e12, 1e30)
    ]
    assert errors == pytest.approx([errors[2]] * 5, rel=1e-3)


@ALL_FORMS
def test_pointwise_kernels_are_left_to_svd(form):
    for window in ((), (1,), (1, 1), (1, 1, 1)):
        assert (form.refuses((8, 8, *window)) is None) == (form.name == "svd")


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_named_as_its_row(name):
    assert FORMS[name].name == name


def test_svd_refuses_what_is_of_rank_one_already():
    assert FORMS["svd"].refuses((1, 8, 3, 3)) is not None
    assert FORMS["svd"].refuses((8, 1)) is not None
    assert FORMS["svd"].refuses((8, 1, 3, 3)) is None


def test_one_sided_windows_are_left_to_cp3():
    assert FORMS["cp3"].refuses((8, 8, 3, 1)) is None
    assert "cp3" in FORMS["cp4"].refuses((8, 8, 3, 1))


@pytest.mark.parametrize(
    ("form", "macs"), [("cp4", 5 * (4 + 3 + 5 + 6)), ("cp3", 5 * (4 + 15 + 6))]
)
def test_cost_is_that_of_the_papers_at_stride_one(form, macs):
    shape, geometry = (6, 4, 3, 5), Geometry(pads=(1, 2, 1, 2))
    factors = FORMS[form].draw(shape, 5, np.random.default_rng(0))
    chain = FORMS[form].stages(factors, shape, geometry)
    assert cost(chain, (10, 12)).macs == macs * 120
    assert cost(chain, (10, 12)).parameters == macs


@CP_FORMS
def test_a_fit_that_overflows_is_refused_and_says_so(form, monkeypatch):
    def not_finite(shape, rank, rng):
        return tuple(np.full((size, rank), np.nan) for size in (4, 4, *form.window(shape)))

    monkeypatch.setattr(form, "draw", not_finite)
    kernel = np.random.default_rng(0).standard_normal((4, 4, 3, 3))
    fit = form.fit(kernel, 4, None, np.random.default_rng(0), Effort(), None)
    assert fit.outcome is Outcome.DIVERGED


@ALL_FORMS
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_kernel_that_is_not_finite_ends_as_diverged(form, broken):
    kernel = np.ones((4, 4, 3, 3))
    kernel[1, 2, 0, 0] = broken
    fit = form.fit(kernel, 4, None, np.random.default_rng(0), Effort(), None)
    assert fit.outcome is Outcome.DIVERGED


@ALL_FORMS
@pytest.mark.parametrize("shape", TAKEN.values(), ids=TAKEN)
def test_windows_of_any_dimension_are_the_convolution_with_the_reconstructed_kernel(form, shape):
    skip_refused(form, shape)
    rng = np.random.default_rng(0)
    geometry = Geometry(pads=(1,) * 2 * (len(shape) - 2), dimensions=len(shape) - 2)
    factors, x = (
        form.draw(shape, 20, rng),
        rng.standard_normal((2, shape[1], *(7, 8, 6)[: len(shape) - 2])),
    )
    dense = Stage("dense", form.reconstruct(factors, shape), geometry)
    chain = form.stages(factors, shape, geometry)
    np.testing.assert_allclose(run(chain, x), run([dense], x), rtol=1e-10, atol=1e-9)


@ALL_FORMS
@pytest.mark.parametrize("shape", TAKEN.values(), ids=TAKEN)
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_the_error_reported_is_that_of_the_factors_in_the_norm(form, shape, norm):
    skip_refused(form, shape)
    kernel = np.random.default_rng(0).standard_normal(shape)
    measured = norm(shape[1], math.prod(shape[2:]))
    fit = form.fit(kernel, 4, measured, np.random.default_rng(0), Effort(), None)
    rebuilt = form.reconstruct(fit.factors, shape)
    assert fit.error == pytest.approx(weighted_error(kernel, rebuilt, measured), rel=1e-9)


def weighted_error(kernel, model, norm):
    """‖kernel − model‖ / ‖kernel‖ by the definition, position by position."""
    count, inputs = math.prod(kernel.shape[2:]), kernel.shape[1]
    sigma = np.eye(inputs * count) if norm is None else norm.covariance
    if len(sigma) == inputs:
        sigma = np.kron(np.eye(count), sigma)
    sigma = sigma.reshape(count, inputs, count, inputs)

    def energy(tensor):
        tensor = tensor.reshape(-1, inputs, count)
        return np.einsum("tsk,kslz,tzl->", tensor, sigma, tensor, optimize=True)

    return np.sqrt(energy(kernel - model) / energy(kernel))


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]


@ALL_FORMS
@pytest.mark.parametrize("norm", [n for n in NORMS if n != "plain"])
@pytest.mark.parametrize("shape", UNLIKE, ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_in_the_norm_no_fit_is_worse_than_the_plain_one(form, norm, shape, seed):
    skip_refused(form, shape)
    kernel = np.random.default_rng(seed).standard_normal(shape)
    measured = NORMS[norm](shape[1], math.prod(shape[2:]), seed)
    rank = max(2, min(shape[:2]) // 2)
    ours, plain = (
        form.fit(kernel, rank, n, np.random.default_rng(seed), Effort(), None)
        for n in (measured, None)
    )
    rebuilt = form.reconstruct(plain.factors, shape)
    assert ours.error <= weighted_error(kernel, rebuilt, measured) * (1 + 1e-9)


WHATEVER_IT_COSTS = Effort(
    corrections=0, floor=0.0, finish=3000, polish=3000, tolerance=1e-12, settled=1e-13
)


@ALL_FORMS
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("shape", TAKEN.values(), ids=TAKEN)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_planted_rank_is_recovered_in_any_norm(form, norm, shape, seed):
    skip_refused(form, shape)
    measured = norm(shape[1], math.prod(shape[2:]))
    kernel = planted(form, shape, 2, seed)
    rng = np.random.default_rng(seed + 1)
    assert form.fit(kernel, 2, measured, rng, WHATEVER_IT_COSTS, None).error < EXACT


@ALL_FORMS
@pytest.mark.parametrize("norm", [None, by_channel(12, 9)], ids=["plain", "channels"])
def test_a_planted_rank_is_recovered_in_any_order_of_summation(form, norm):
    """Channels and positions in another order are the same sums in another order."""
    kernel, rng = planted(form, (16, 12, 3, 3), rank=2), np.random.default_rng(0)
    for _ in range(3):
        outputs, inputs, rows = (rng.permutation(n) for n in (16, 12, 3))
        moved = kernel[outputs][:, inputs][:, :, rows]
        turned = None if norm is None else Norm(norm.covariance[np.ix_(inputs, inputs)])
        fit = form.fit(moved, 2, turned, np.random.default_rng(1), WHATEVER_IT_COSTS, None)
        assert fit.error < EXACT


@ALL_FORMS
@pytest.mark.parametrize("shape", TAKEN.values(), ids=TAKEN)
def test_sensitivity_is_the_noise_gain_of_the_chain(form, shape):
    skip_refused(form, shape)
    rng, sigma, trials = np.random.default_rng(0), 1e-5, 1000
    kernel = rng.standard_normal(shape)
    factors = form.fit(kernel, 16, None, rng, DRAFT, None).factors
    still = form.reconstruct(factors, shape)
    gains = []
    for _ in range(trials):
        noisy = tuple(f + sigma * rng.standard_normal(f.shape) for f in factors)
        gains.append(np.sum((form.reconstruct(noisy, shape) - still) ** 2) / sigma**2)
    assert form.sensitivity(factors) == pytest.approx(np.mean(gains), rel=0.05)


@ALL_FORMS
@pytest.mark.parametrize("channel_only", [False, True])
def test_few_samples_and_dead_channels_give_finite_factors(form, channel_only):
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((20, 9, 8))
    samples[:, :, [1, 5]] = 0
    rows = samples.reshape(-1, 8) if channel_only else samples.reshape(20, -1)
    norm = Norm.of(rows.T @ rows / len(rows))
    kernel = rng.standard_normal((6, 8, 3, 3))
    fit = form.fit(kernel, 4, norm, np.random.default_rng(0), Effort(), None)
    assert all(np.isfinite(f).all() for f in fit.factors)
    assert np.isfinite(fit.error)
    assert fit.outcome is not Outcome.DIVERGED


@ALL_FORMS
def test_a_start_is_never_left_for_worse(form):
    shape, rng = (8, 6, 3, 3), np.random.default_rng(0)
    kernel, norm = rng.standard_normal(shape), full(6, 9)
    for measured in (None, norm):
        first = form.fit(kernel, 5, measured, np.random.default_rng(0), Effort(), None)
        again = form.fit(kernel, 5, measured, np.random.default_rng(1), Effort(), first.factors)
        assert again.error <= first.error * 1.02


@ALL_FORMS
@pytest.mark.parametrize("shape", TAKEN.values(), ids=TAKEN)
def test_a_rank_beyond_use_still_makes_a_chain(form, shape):
    skip_refused(form, shape)
    rng, geometry = np.random.default_rng(0), Geometry(dimensions=len(shape) - 2)
    factors = form.draw(shape, 3 * form.largest(shape), rng)
    assert form.reconstruct(factors, shape).shape == shape
    assert form.stages(factors, shape, geometry)[-1].weight.shape[0] == shape[0]


BASED = (24, 20, 3, 3)  # wide enough for tkd to have both bases at this rank
RANK = 24


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_tkd_with_bases_obeys_the_laws(norm):
    form, rng = FORMS["tkd"], np.random.default_rng(0)
    kernel, measured = rng.standard_normal(BASED), norm(20, 9)
    fit = form.fit(kernel, RANK, measured, rng, Effort(), None)
    assert [f.shape[1] for f in fit.factors[:2]] == [8, 8]
    assert [f.shape for f in fit.factors] == [f.shape for f in form.draw(BASED, RANK, rng)]
    rebuilt = form.reconstruct(fit.factors, BASED)
    assert fit.error == pytest.approx(weighted_error(kernel, rebuilt, measured), rel=1e-9)
    assert fit.sensitivity_after <= 1.01 * fit.sensitivity_before * (1 + ROUNDED)
    x = rng.standard_normal((1, 20, 9, 9))
    chain = form.stages(fit.factors, BASED, Geometry(strides=(2, 1), pads=(1, 1, 1, 1)))
    assert [s.role for s in chain] == ["first", "inputs", "window", "outputs", "last"]
    dense = Stage("dense", rebuilt, Geometry(strides=(2, 1), pads=(1, 1, 1, 1)))
    np.testing.assert_allclose(run(chain, x), run([dense], x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("seed", range(4))
def test_tkd_with_bases_recovers_what_it_planted(norm, seed):
    """Few terms in bases as wide as those of a larger rank: CP itself is easy here."""
    form, rng = FORMS["tkd"], np.random.default_rng(seed)
    outer, first, outputs, inputs, window = form.draw(BASED, RANK, rng)
    outputs[:, 3:] = 0
    kernel = form.reconstruct((outer, first, outputs, inputs, window), BASED)
    effort = replace(WHATEVER_IT_COSTS, polish=500)
    fit = form.fit(kernel, RANK, norm(20, 9), np.random.default_rng(seed + 1), effort, None)
    assert fit.error < EXACT


def test_tkd_with_bases_knows_its_sensitivity():
    form, rng, sigma = FORMS["tkd"], np.random.default_rng(0), 1e-5
    factors = form.draw(BASED, RANK, rng)
    still, gains = form.reconstruct(factors, BASED), []
    for _ in range(300):
        noisy = tuple(f + sigma * rng.standard_normal(f.shape) for f in factors)
        gains.append(np.sum((form.reconstruct(noisy, BASED) - still) ** 2) / sigma**2)
    assert form.sensitivity(factors) == pytest.approx(np.mean(gains), rel=0.05)


@pytest.mark.parametrize("norm", [full, by_channel])
def test_tkd_with_bases_is_better_in_the_norm_than_the_plain_fit(norm):
    form = FORMS["tkd"]
    for seed in range(3):
        kernel = np.random.default_rng(seed).standard_normal(BASED)
        measured = norm(20, 9, seed)
        ours, plain = (
            form.fit(kernel, RANK, n, np.random.default_rng(seed), Effort(), None)
            for n in (measured, None)
        )
        rebuilt = form.reconstruct(plain.factors, BASED)
        assert ours.error <= weighted_error(kernel, rebuilt, measured)


@ALL_FORMS
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), BASED], ids=str)
def test_no_mixing_between_stages_is_less_sensitive_than_what_a_fit_returns(form, shape):
    """Scales between the first factor and each of the others, of all columns alike."""
    kernel = np.random.default_rng(0).standard_normal(shape)
    factors = form.fit(kernel, 24, None, np.random.default_rng(0), DRAFT, None).factors
    least, used = form.sensitivity(factors), [n for n, f in enumerate(factors) if f.size]
    for one in used:
        for other in used:
            if one != other:
                moved = list(factors)
                moved[one], moved[other] = 1.05 * factors[one], factors[other] / 1.05
                assert form.sensitivity(tuple(moved)) >= least * (1 - 1e-9)


def test_svd_and_tucker2_are_the_least_sensitive_under_any_mixing():
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((9, 6, 3, 3))
    for name in ("svd", "tucker2"):
        fit = FORMS[name].fit(kernel, 4, None, rng, Effort(), None)
        outputs, middle = fit.factors[0], fit.factors[-1]
        for _ in range(50):
            mix = np.eye(4) + 0.1 * rng.standard_normal((4, 4))
            other = np.tensordot(np.linalg.inv(mix), middle, axes=1)
            moved = (outputs @ mix, *fit.factors[1:-1], other)
            assert FORMS[name].sensitivity(moved) >= fit.sensitivity_after * (1 - 1e-12)


def test_svd_in_a_norm_is_the_whitened_truncated_svd():
    kernel, norm = np.random.default_rng(0).standard_normal((7, 5, 3, 3)), full(5, 9)
    rows = kernel.transpose(0, 2, 3, 1).reshape(7, -1)
    root = np.linalg.cholesky(norm.covariance)
    values = np.linalg.svd(rows @ root, compute_uv=False)
    fit = FORMS["svd"].fit(kernel, 3, norm, np.random.default_rng(0), Effort(), None)
    left = np.sqrt(np.square(values[3:]).sum() / np.square(values).sum())
    assert fit.error == pytest.approx(left, rel=1e-9)


def test_the_largest_rank_of_a_form_is_exact():
    for name, form in FORMS.items():
        for shape in ((4, 3, 2, 2), (12, 2, 2, 2), (2, 9, 2, 2)):
            kernel = np.random.default_rng(0).standard_normal(shape)
            rank = form.largest(shape)
            fit = form.fit(kernel, rank, None, np.random.default_rng(0), Effort(), None)
            assert fit.error < (1e-12 if name in ("svd", "tucker2") else 0.02)


@pytest.mark.parametrize("form", ["cp3", "cp4"])
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_a_fit_grown_from_a_smaller_rank_is_as_good_as_a_fresh_one(form, norm):
    kernel, row = np.random.default_rng(0).standard_normal((24, 16, 3, 3)), FORMS[form]
    measured, rng = norm(16, 9, 0), np.random.default_rng(1)
    small = row.fit(kernel, 16, measured, rng, DRAFT, None)
    grown = row.fit(kernel, 32, measured, rng, DRAFT, small.factors)
    fresh = row.fit(kernel, 32, measured, rng, DRAFT, None)
    assert grown.error < small.error
    assert grown.error < 1.1 * fresh.error  # what drafts may be apart: see DRAFT
