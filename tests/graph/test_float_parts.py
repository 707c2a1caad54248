"""What of a chain an int8 model leaves in float."""

import json
from dataclasses import replace
from fnmatch import fnmatchcase

import onnx
import pytest
from written import chain, model, weight

from onnxcp.forms import FORMS
from onnxcp.graph import float_parts, io, provenance, sites
from onnxcp.graph.shapes import infer
from onnxcp.graph.splice import rewrite
from onnxcp.graph.weights import with_weights
from onnxcp.plan import Choice

NODES = """
    [conv0] h = Conv <pads = [1, 1, 1, 1]> (x, w0)
    [conv1] y = Conv <pads = [1, 1, 1, 1]> (h, w1)
"""
ROLES = {
    "cp3": ["inputs", "window", "outputs"],
    "cp4": ["inputs", "vertical", "horizontal", "outputs"],
    "tucker2": ["inputs", "core", "outputs"],
    "svd": ["inputs", "outputs"],
}
LEFT = {
    ("cp3", ""): [],
    ("cp3", "windows"): ["window"],
    ("cp4", "windows"): ["vertical", "horizontal"],
    ("svd", "windows"): [],
    **{(form, "chain"): roles for form, roles in ROLES.items()},
}


@pytest.mark.parametrize("row", LEFT, ids=" ".join)
@pytest.mark.parametrize("site", ["a", "block/conv[1]", "conv*", "what?"])
def test_globs_name_the_nodes_that_stay_and_no_others(site, row):
    form, floats = row
    globs = float_parts.globs(site, floats, ROLES[form])
    nodes = {r: f"{site}/cp/{r}" for r in ROLES[form]}
    assert [r for r, n in nodes.items() if any(fnmatchcase(n, g) for g in globs)] == LEFT[row]
    assert not any(fnmatchcase(f"{other}/cp/window", g) for g in globs for other in ("conv1", "b"))


@pytest.mark.parametrize("form", FORMS)
def test_windows_are_the_depthwise_stages_of_a_chain(form, tmp_path):
    site = found(tmp_path)[1][0]
    made = chain(site, form)
    depthwise = [s.role for s in made if s.group > 1 and s.weight.shape[1] == 1]
    assert float_parts.possible([s.role for s in made]) == (
        float_parts.KINDS if depthwise else ("chain",)
    )
    assert float_parts.globs("a", "windows", [s.role for s in made]) == [
        f"a/cp/{r}" for r in depthwise
    ]


def found(folder):
    path = model(folder / "m.onnx", NODES, {"w0": weight(6, 4, 3, 3), "w1": weight(5, 6, 3, 3)})
    proto = io.load(path).proto
    return proto, sites.find(proto, infer(proto, {"x": (1, 4, 9, 8)}))[0]


def chained(folder, floats):
    """A model of two chains whose metadata tell what stays in float of the second."""
    proto, both = found(folder)
    chains = {site.name: chain(site, "cp3") for site in both}
    choices = {"conv0": Choice("cp3", 4), "conv1": Choice("cp3", 4, floats)}
    kernels = {site.name: site.kernel for site in both}
    records = {n: provenance.record(choices[n], c, kernels[n]) for n, c in chains.items()}
    metadata = provenance.entries("ab" * 32, provenance.read(proto), records)
    return rewrite(proto, chains, both, metadata=metadata).proto


def test_a_model_tells_what_is_to_stay_in_float(tmp_path):
    assert provenance.left_in_float(chained(tmp_path, "windows")) == ["conv1/cp/window"]
    assert provenance.left_in_float(chained(tmp_path, "chain")) == ["conv1/cp/*"]


def test_where_nothing_stays_in_float_the_metadata_are_what_they_were(tmp_path):
    proto = chained(tmp_path, "")
    entry = next(p.value for p in proto.metadata_props if p.key == provenance.CHAINS)
    assert {tuple(row) for row in json.loads(entry).values()} == {
        ("form", "kernel", "rank", "stages")
    }
    assert provenance.left_in_float(proto) == []


def test_training_does_not_change_what_stays_in_float(tmp_path):
    proto = chained(tmp_path, "windows")
    (tensor,) = [t for t in proto.graph.initializer if t.name == "conv1/cp/window.weight"]
    trained = with_weights(proto, {tensor.name: 2 * onnx.numpy_helper.to_array(tensor)})
    assert provenance.left_in_float(trained) == ["conv1/cp/window"]
    (old, new) = (provenance.read(p).chains["conv1"] for p in (proto, trained))
    assert old.stages != new.stages
    assert replace(old, stages=()) == replace(new, stages=())
