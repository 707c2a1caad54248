"""The rank that empirical variational Bayes (EVB) finds in a matrix, from its singular values.

The matrix is seen as a product of two Gaussian factors plus white noise; prior variances and
the noise variance are estimated. The free energy of this model has a global minimum in closed
form but for the noise variance σ², which one-dimensional search finds between two bounds.
Singular values γ of an L × M matrix, L ≤ M, are seen as x = γ² / (M σ²), and α = L / M.
Source: Nakajima, Sugiyama, Babacan & Tomioka, Global analytic solution of fully-observed
variational Bayesian matrix factorization, JMLR 14, 2013 (the solution); Nakajima, Tomioka,
Sugiyama & Babacan, Condition for perfect dimensionality recovery by variational Bayesian
PCA, JMLR 16, 2015 (in terms of x and τ, and the bounds of σ²).
"""

import numpy as np

from onnxcp.arrays import Float64
from onnxcp.plan import Spectrum

VARIANCES = 1000  # tried between the bounds, in equal ratios
TINY = 1e-12  # least noise variance, relative to the mean square of the matrix


def rank(spectrum: Spectrum) -> int:
    """How many singular values stand out of the noise, which is estimated with them."""
    energy = np.sort(np.square(np.asarray(spectrum.values, np.float64)))[::-1]
    least, most = sorted((spectrum.rows, spectrum.columns))
    if not energy.any():
        return 0
    variances = _variances(energy, least, most)
    x = energy[:, None] / (most * variances)
    gained = gain(x, least / most)
    free = x.sum(0) + least * np.log(variances) + gained.sum(0)  # but for a constant, over M/2
    return int((gained[:, free.argmin()] < 0).sum())


def _variances(
    energy: Float64[np.ndarray, " L"], least: int, most: int
) -> Float64[np.ndarray, " V"]:
    """Noise variances to try: from the mean of what no rank can explain to the mean of all."""
    mean = energy.sum() / (least * most)
    explained = int(np.ceil(least / (1 + least / most))) - 1  # no more ranks stand out
    tail = energy[explained:].sum() / (most * (least - explained))
    return np.geomspace(max(tail, TINY * mean), mean, VARIANCES)


def gain(x: Float64[np.ndarray, "*shape"], alpha: float) -> Float64[np.ndarray, "*shape"]:
    """What the free energy changes, over M/2, if a component is kept; 0 where it is not.

    With x = (1 + τ)(1 + α/τ) solved for τ: ln(1 + τ) + α ln(1 + τ/α) − τ where that is
    negative; below x = (1 + √α)² there is no τ.
    """
    above = np.maximum(x - (1 + alpha), 2 * np.sqrt(alpha))
    tau = (above + np.sqrt(np.square(above) - 4 * alpha)) / 2
    change = np.log1p(tau) + alpha * np.log1p(tau / alpha) - tau
    return np.where(x > (1 + np.sqrt(alpha)) ** 2, np.minimum(change, 0.0), 0.0)
