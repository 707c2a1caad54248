"""A fit as it is kept on disk."""

import numpy as np

from onnxcp.fitting import store
from onnxcp.forms import Fit, Outcome


def entry(seed=0):
    rng = np.random.default_rng(seed)
    factors = tuple(rng.standard_normal((size, 3)) for size in (4, 5, 9))
    fit = Fit("cp3", factors, 0.25, 8.0, 2.0, Outcome.SWEEPS_EXHAUSTED, 40)
    return store.Entry((fit, fit), (1.5, 2.5), 0.75)
