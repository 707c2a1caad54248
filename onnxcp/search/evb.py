"""The rank of a matrix by empirical variational Bayes (EVB), from its singular values.

The model is a product of two Gaussian factors plus white noise; prior variances and the noise
variance σ² are estimated. The free energy has a global minimum in closed form for each σ², which
a one-dimensional search finds between two bounds. Singular values γ of an L × M matrix, L ≤ M,
enter as x = γ² / (M σ²), with α = L / M. Sources: Nakajima, Sugiyama, Babacan & Tomioka, Global
analytic solution of fully-observed variational Bayesian matrix factorization, JMLR 14, 2013 (the
solution); Nakajima, Tomioka, Sugiyama & Babacan, Condition for perfect dimensionality recovery by
variational Bayesian PCA, JMLR 16, 2015 (in terms of x and τ, and the bounds of σ²).
"""

import numpy as np

from onnxcp.arrays import Float64
from onnxcp.plan import Spectrum

VARIANCES = 1000  # tried between the bounds, in equal ratios
MIN_VARIANCE = 1e-12  # of the noise, relative to the mean square of the matrix


def rank(spectrum: Spectrum) -> int:
    """How many singular values exceed the noise; 0 for a matrix of zeros.

    The noise variance is estimated from the same singular values.
    """
    energy = np.sort(np.square(np.asarray(spectrum.values, np.float64)))[::-1]
    smaller, larger = sorted((spectrum.rows, spectrum.columns))
    if not energy.any():
        return 0
    variances = _variances(energy, smaller, larger)
    x = energy[:, None] / (larger * variances)
    gains = gain(x, smaller / larger)
    free_energy = x.sum(0) + smaller * np.log(variances) + gains.sum(0)  # plus a constant, over M/2
    return int((gains[:, free_energy.argmin()] < 0).sum())


def _variances(
    energy: Float64[np.ndarray, " L"], smaller: int, larger: int
) -> Float64[np.ndarray, " V"]:
    """Noise variances to try: from the mean energy beyond the largest rank to that of all."""
    mean = energy.sum() / (smaller * larger)
    explained = int(np.ceil(smaller / (1 + smaller / larger))) - 1  # the largest rank possible
    tail = energy[explained:].sum() / (larger * (smaller - explained))
    return np.geomspace(max(tail, MIN_VARIANCE * mean), mean, VARIANCES)


def gain(x: Float64[np.ndarray, "*shape"], alpha: float) -> Float64[np.ndarray, "*shape"]:
    """The change of the free energy, over M/2, by keeping a component; 0 if it is dropped.

    With x = (1 + τ)(1 + α/τ) solved for τ: ln(1 + τ) + α ln(1 + τ/α) − τ if that is negative;
    below x = (1 + √α)² there is no τ. Never positive.
    """
    above = np.maximum(x - (1 + alpha), 2 * np.sqrt(alpha))
    tau = (above + np.sqrt(np.square(above) - 4 * alpha)) / 2
    change = np.log1p(tau) + alpha * np.log1p(tau / alpha) - tau
    return np.where(x > (1 + np.sqrt(alpha)) ** 2, np.minimum(change, 0.0), 0.0)
