"""Chains fitted in sequence are a value of their own: what is fitted of a layer alone stays."""

import pathlib

import numpy as np
import pytest
from asked import settings

from onnxcp.optimization.calibration import learn_inputs
from onnxcp.optimization.open_run import open_run
from onnxcp.plan import Choice, Plan
from onnxcp.progress import silent

MODELS = pathlib.Path(__file__).parents[2] / "models"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """The chains of a plan of two layers: fitted alone, in sequence, and alone once more."""
    output, data = tmp_path_factory.mktemp("sequence") / "out.onnx", f"{MODELS}/digits.npz[:60]"
    asked = settings(MODELS / "digits.onnx", output, data=(data,), sequential=True)
    with open_run(asked, silent) as job:
        plan = Plan({site.name: Choice("cp3", 8) for site in job.sites[:2]})
        learn_inputs(job, list(plan.choices))
        return job.fits.chains(plan), job.builder.chains(plan), job.fits.chains(plan)


def is_equal(name, one, other):
    pairs = zip(one.by_site[name], other.by_site[name], strict=True)
    return all(np.array_equal(a.weight, b.weight) for a, b in pairs)


def test_a_fit_in_sequence_changes_no_fit_of_a_layer_alone(fitted):
    before, _, after = fitted
    assert after.refits == before.refits == frozenset()
    assert all(is_equal(name, before, after) for name in before.by_site)


def test_chains_tell_which_of_them_were_fitted_in_sequence(fitted):
    alone, refined, _ = fitted
    last = list(alone.by_site)[-1]
    assert refined.refits == set(alone.by_site)
    assert refined.plan == alone.plan
    assert not is_equal(last, alone, refined)
