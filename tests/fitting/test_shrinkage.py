"""Covariances of few images."""

import numpy as np
import pytest

from onnxcp.fitting.shrinkage import MOST_SHARE, Scatter, shrunk

SIZE, PATCHES = 24, 40


def images(rng, count, patches=PATCHES, basis=None):
    """Patches of images with a few directions each, alike within an image: [1, N, P, KS]."""
    made = []
    for _ in range(count):
        strengths = rng.lognormal(sigma=0.8, size=SIZE) / np.arange(1, SIZE + 1)
        rows = rng.standard_normal((patches, SIZE)) * strengths
        made.append(rows + rng.standard_normal(SIZE) * 0.3)
    turned = np.array(made) @ (np.eye(SIZE) if basis is None else basis)
    return turned[None].astype(np.float32)


def covariance(found):
    rows = found.reshape(-1, SIZE).astype(np.float64)
    return np.cov(rows.T, bias=True)


def share_of(found, batch=4):
    scatter = Scatter(1)
    for start in range(0, found.shape[1], batch):
        scatter.add(found[:, start : start + batch])
    return scatter.share(0, found.shape[1], covariance(found))


def low_rank(kernel, norm, rank):
    """The best kernel of a rank in a norm, in closed form."""
    values, vectors = np.linalg.eigh(norm)
    values = np.sqrt(np.maximum(values, 1e-9 * values[-1]))
    root, back = (vectors * values) @ vectors.T, (vectors / values) @ vectors.T
    left, sizes, right = np.linalg.svd(kernel @ root, full_matrices=False)
    return (left[:, :rank] * sizes[:rank]) @ right[:rank] @ back


def loss(kernel, model, norm):
    apart = kernel - model
    return np.trace(apart @ norm @ apart.T) / np.trace(kernel @ norm @ kernel.T)


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_a_fit_to_few_images_loses_less_on_others_than_without_and_than_unmixed(count):
    mixed, raw, plain = [], [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        basis = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0]
        kernel = rng.standard_normal((16, SIZE))
        truth = covariance(images(rng, 600, basis=basis))
        few = images(rng, count, patches=8, basis=basis)
        measured = covariance(few)
        norms = (shrunk(measured, share_of(few)), measured, np.eye(SIZE))
        for kept, norm in zip((mixed, raw, plain), norms, strict=True):
            kept.append(loss(kernel, low_rank(kernel, norm, 6), truth))
    assert np.mean(mixed) < np.mean(plain)
    assert np.mean(mixed) < np.mean(raw)


def test_many_images_are_hardly_mixed():
    assert share_of(images(np.random.default_rng(0), 400)) < 0.05


def test_the_share_falls_as_images_are_added():
    found = images(np.random.default_rng(1), 64)
    shares = [share_of(found[:, :count]) for count in (4, 16, 64)]
    assert shares[0] > shares[1] > shares[2] > 0


def test_the_share_is_the_variance_over_the_distance_as_ledoit_and_wolf_have_it():
    """Pairs of neighbors give what all images do, in the mean."""
    found = images(np.random.default_rng(2), 30)
    own = [covariance_about(f, found.reshape(-1, SIZE).mean(0)) for f in found[0]]
    whole = covariance(found)
    variance = sum(np.square(c - np.mean(own, 0)).sum() for c in own) / 29 / 30
    away = np.square(whole - np.trace(whole) / SIZE * np.eye(SIZE)).sum()
    assert share_of(found, batch=30) == pytest.approx(variance / away, rel=0.5)


def covariance_about(rows, center):
    return (rows - center).T.astype(np.float64) @ (rows - center) / len(rows)


@pytest.mark.parametrize("batch", [1, 3, 12])
def test_how_images_are_batched_does_not_matter(batch):
    found = images(np.random.default_rng(3), 12)
    assert share_of(found, batch) == pytest.approx(share_of(found, 12), rel=1e-9)


def test_either_product_gives_the_same_distance():
    """Of images with more patches than a patch has values, and with fewer."""
    found = images(np.random.default_rng(4), 2, patches=SIZE - 1)
    doubled = np.concatenate([found, found], axis=2)  # the same covariances
    assert share_of(found) == pytest.approx(share_of(doubled), rel=1e-4)


def test_one_image_shows_no_variance():
    assert share_of(images(np.random.default_rng(5), 1)) == MOST_SHARE


def test_mixing_keeps_the_mean_variance_and_raises_the_least():
    measured = covariance(images(np.random.default_rng(6), 1, patches=5))
    mixed = shrunk(measured, 0.25)
    assert np.trace(mixed) == pytest.approx(np.trace(measured))
    assert np.linalg.eigvalsh(measured)[0] < 1e-6
    least = 0.25 * np.trace(measured) / SIZE
    assert np.linalg.eigvalsh(mixed)[0] == pytest.approx(least, rel=1e-3)


def test_what_is_not_finite_is_left_for_others_to_refuse():
    found = images(np.random.default_rng(7), 4)
    found[0, 2, 3, 5] = np.nan
    assert share_of_unsafe(found) == 0.0


def share_of_unsafe(found):
    scatter = Scatter(1)
    scatter.add(found)
    return scatter.share(0, found.shape[1], np.full((SIZE, SIZE), np.nan, np.float32))
