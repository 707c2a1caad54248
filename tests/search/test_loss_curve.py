"""What all measurements together tell of what a change of the outputs costs."""

import math

import numpy as np
import pytest

from onnxcp.plan import Score
from onnxcp.search.loss_curve import pooled

CHANGES = (0.05, 0.03, 0.02, 0.025)
NOISE = 0.003


def scores(price, noise=NOISE, seed=0):
    rng = np.random.default_rng(seed)
    return [Score(price * c + noise * rng.standard_normal(), noise, c) for c in CHANGES]


def test_the_price_is_within_the_doubt_it_states():
    found = [pooled(scores(0.3, seed=seed)) for seed in range(200)]
    off = [(price.scale / 0.3 - 1) / price.relative_error for price in found if price is not None]
    assert len(off) == 200
    assert np.std(off) == pytest.approx(1, abs=0.15)


UNKNOWN = {
    "losses that are noise": scores(0.01),
    "losses without noise, of which each counts": scores(0.3, noise=0.0),
    "gains": scores(-0.3),
    "outputs that are no numbers": [*scores(0.3), Score(0.9, NOISE, math.inf)],
}


@pytest.mark.parametrize("given", UNKNOWN.values(), ids=UNKNOWN)
def test_nothing_is_pooled_from(given):
    assert pooled(given) is None
