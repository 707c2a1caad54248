"""In a search for int8 no plan leaves every layer in float."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from written import model

from onnxcp.graph import io
from onnxcp.optimization.int8_coverage import some_in_int8
from onnxcp.plan import Candidate, Choice, Menu, Original

INT8, FLOAT = Choice("svd", 8), Choice("svd", 8, "chain")
TWO = "[a] b = Conv (x, v) c = Relu (b) [d] y = Conv (c, w)"
THREE = "[a] b = Conv (x, v) [e] c = Conv (b, w) [d] y = Conv (c, w)"


def searched(tmp_path, nodes=TWO, precision="int8"):
    """A run on a model, as far as a menu is concerned."""
    weights = dict.fromkeys("vw", np.ones((4, 4, 1, 1)))
    interface = "float[N,4,9,8] x) => (float[N,4,9,8] y"
    loaded = io.load(model(tmp_path / "m.onnx", nodes, weights, interface))
    return SimpleNamespace(settings=SimpleNamespace(precision=precision), model=loaded)


def menu(**times):
    """Of layers that take a second: what their candidates take, by what is left in float."""
    sites = {
        name: [Candidate(name, choice, seconds, 1) for choice, seconds in rows.items()]
        for name, rows in times.items()
    }
    originals = {name: Original(1.0, 16, 4) for name in times}
    return Menu(sites, originals, 2.0, lambda _: 0.0, lambda _: [])


def plans(made):
    """All plans that replace every layer of two."""
    both = [[c.choice.floats for c in made.sites.get(name, [])] or ["int8"] for name in "ad"]
    return set(itertools.product(*both))


@pytest.mark.parametrize("others", [{}, {INT8: 0.7}])
def test_no_plan_leaves_all_in_float(tmp_path, others):
    made = some_in_int8(searched(tmp_path), menu(a={FLOAT: 0.2}, d={FLOAT: 0.5, **others}))
    assert ("chain", "chain") not in plans(made)
    assert made.sites["a"]


def test_the_layer_for_which_it_costs_least_stays_in_int8(tmp_path):
    made = some_in_int8(
        searched(tmp_path), menu(a={FLOAT: 0.2, INT8: 0.3}, d={FLOAT: 0.5, INT8: 0.9})
    )
    assert [c.choice for c in made.sites["a"]] == [INT8]
    assert [c.choice for c in made.sites["d"]] == [FLOAT, INT8]


UNTOUCHED = {
    "where another layer is left": ({"nodes": THREE}, {FLOAT: 0.5}),
    "in float": ({"precision": "float32"}, {FLOAT: 0.5}),
    "where a layer has chains in int8 alone": ({}, {INT8: 0.5}),
}


@pytest.mark.parametrize("case", UNTOUCHED.values(), ids=UNTOUCHED)
def test_nothing_is_taken_from_a_menu(tmp_path, case):
    given, second = case
    whole = menu(a={FLOAT: 0.2}, d=second)
    assert some_in_int8(searched(tmp_path, **given), whole) is whole
