"""Latency tables: which candidates there are, and what counts as faster."""

import numpy as np
import pytest

from onnxcp import latency
from onnxcp.benchmark import Speedup
from onnxcp.conv import Geometry, cost
from onnxcp.errors import UsageError
from onnxcp.forms import FORMS
from onnxcp.latency import Latency, Measured, all_choices, candidate_ranks, candidates, measure
from onnxcp.plan import Choice
from onnxcp.providers import Target
from onnxcp.sites import Layer, Site

CPU = Target.named("cpu", threads=1)


def site(name="a", shape=(32, 32, 3, 3), image=(8, 8), bias=None):
    kernel = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    layer = Layer(name, "Conv", shape)
    return Site(layer, 0, kernel, bias, Geometry(pads=(1, 1, 1, 1)), image, 1, f"{name}.weight")


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("block", [8, 16])
def test_ranks_are_whole_blocks_that_save_multiply_adds(form, block):
    ranks = candidate_ranks(form, site(shape=(64, 64, 3, 3)), block)
    assert ranks[0] == block
    assert all(rank % block == 0 for rank in ranks)
    assert ranks == sorted(set(ranks))
    chain = form.stages(
        form.draw((64, 64, 3, 3), ranks[-1], np.random.default_rng(0)),
        (64, 64, 3, 3),
        Geometry(pads=(1, 1, 1, 1)),
    )
    assert cost(chain, (8, 8)).macs < 64 * 64 * 9 * 64


def test_a_refused_kernel_has_no_candidates():
    assert candidate_ranks(FORMS["cp4"], site(shape=(32, 32, 3, 1)), 16) == []


def test_an_unknown_image_size_says_what_to_pass():
    with pytest.raises(UsageError, match="--input-shape"):
        candidate_ranks(FORMS["cp3"], site(image=None), 16)


def test_every_choice_is_timed_against_the_conv():
    sites = [site()]
    table = measure({"a": all_choices(sites[0], ["cp3"], 16)}, sites, CPU, Ticks())
    assert [m.choice.rank for m in table["a"].tried] == [16, 32, 48, 64, 80, 96]
    assert table["a"].dense > 0


def test_equal_sites_are_measured_once(monkeypatch):
    opened = []
    real = latency.open_runner
    monkeypatch.setattr(latency, "open_runner", lambda *a: opened.append(a) or real(*a))
    sites = [site("a"), site("b"), site("c", image=(9, 9))]
    measure({s.name: [Choice("cp3", 16)] for s in sites}, sites, CPU, Ticks())
    assert len(opened) == 4  # a Conv and a chain, for two distinct shapes


class Ticks:
    """A clock that advances a second a look: no test here waits for a second to pass."""

    now = 0.0

    def __call__(self):
        self.now += 1
        return self.now


def measured(rank, seconds, low):
    return Measured(Choice("cp3", rank), seconds, Speedup(1 / seconds, low, 99.0))


def test_a_chain_that_may_be_slower_is_no_candidate():
    table = Latency(1.0, (measured(16, 0.5, 1.9), measured(32, 0.95, 0.99), measured(48, 1.2, 0.8)))
    (only,) = candidates("a", table)
    assert (only.choice.rank, only.seconds) == (16, 0.5)
