"""Laws that every form obeys: its chain is the convolution, its fits are honest and stable."""

import numpy as np
import pytest
from onnx.reference.ops.op_conv import Conv

from onnxcp.conv import Geometry, Stage, cost, with_bias
from onnxcp.forms import FORMS, Effort, Outcome
from onnxcp.forms.algebra import sensitivity

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
ALL_FORMS = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def run(chain, x):
    """Evaluate with the ONNX reference evaluator: an oracle that shares no code with us."""
    for stage in chain:
        g = stage.geometry
        slide = {"strides": g.strides, "dilations": g.dilations, "pads": g.pads}
        x = Conv.eval(x, stage.weight, stage.bias, group=stage.group, **slide)
    return x


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
    assert fit.sensitivity_after == pytest.approx(sensitivity(fit.factors), rel=1e-9)


@ALL_FORMS
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
    errors = [
        form.fit(kernel, r, None, np.random.default_rng(0), Effort(), None).error
        for r in (4, 8, 16, 32)
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
        for scale in (1e-12, 1.0, 1e12)
    ]
    assert errors == pytest.approx([errors[1]] * 3, rel=1e-3)


@ALL_FORMS
def test_pointwise_kernels_are_refused(form):
    assert form.refuses((8, 8, 1, 1)) is not None


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


@ALL_FORMS
def test_a_fit_that_overflows_is_refused_and_says_so(form, monkeypatch):
    def not_finite(sizes, rank, rng):
        return tuple(np.full((size, rank), np.nan) for size in sizes)

    monkeypatch.setattr("onnxcp.forms.cp._draw", not_finite)
    kernel = np.random.default_rng(0).standard_normal((4, 4, 3, 3))
    fit = form.fit(kernel, 4, None, np.random.default_rng(0), Effort(), None)
    assert fit.outcome is Outcome.DIVERGED
