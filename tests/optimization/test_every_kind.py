"""Whole runs on models with every kind of site: found, timed, fitted, checked, written."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from typer.testing import CliRunner

from onnxcp.cli import app

SHAPE = (2, 8, 6, 6)
NODES = """
    [whole] a = Conv <pads=[1,1,1,1]> (x, wa, ba)
    r = Relu (a)
    [groups] b = Conv <pads=[1,1,1,1], group=2> (r, wb)
    [point] c = Conv (b, wc, bc)
    [depthwise] d = Conv <group=8> (c, wd)
    l = Reshape (d, lines)
    [line] e = Conv <pads=[1,1]> (l, we)
    v = Reshape (e, volumes)
    [volume] f = Conv <pads=[1,1,1,1,1,1]> (v, wf, bf)
    s = Reshape (f, rows)
    [rows] g = MatMul (s, wg)
    [both] h = MatMul (g, wg)
    m = ReduceMean <axes=[1], keepdims=0> (h)
    [head] i = Gemm <transB=1> (m, wh, bh)
    [half] y = Gemm <alpha=0.5> (i, wg)
"""
WEIGHTS = {
    "wa": (8, 8, 3, 3),
    "ba": (8,),
    "wb": (8, 4, 3, 3),
    "wc": (8, 8, 1, 1),
    "bc": (8,),
    "wd": (8, 1, 1, 1),
    "we": (8, 8, 3),
    "wf": (8, 8, 3, 3, 3),
    "bf": (8,),
    "wg": (8, 8),
    "wh": (8, 8),
    "bh": (1, 8),
}
RESHAPED = {"lines": (0, 8, 36), "volumes": (0, 8, 4, 3, 3), "rows": (0, 36, 8)}
POINTWISE = {"point", "rows", "both", "head"}
CP3 = {"whole", "groups", "line", "volume"}


def model(path: Path) -> Path:
    made = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 14]> '
        f"g (float[n,8,6,6] x) => (float[n,8] y) {{ {NODES} }}"
    )
    rng = np.random.default_rng(0)
    for name, shape in WEIGHTS.items():
        values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        made.graph.initializer.append(onnx.numpy_helper.from_array(values.astype("f"), name))
    for name, shape in RESHAPED.items():
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape), name))
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, path / "model.onnx")
    np.savez(path / "seen.npz", x=rng.standard_normal((64, *SHAPE[1:])).astype("f"))
    return path / "model.onnx"


def run(*arguments):
    ended = CliRunner().invoke(app, [str(a) for a in arguments])
    assert ended.exit_code in (0, 1), ended.stderr
    return ended


def optimized(path: Path, *options):
    """The report of a run on the model, and the model written."""
    source, report, output = model(path), path / "run.json", path / "out.onnx"
    settings = ["--threads", 1, "--jobs", 1, "--iterations", 8, "--report", report]
    ended = run("optimize", source, "-o", output, *settings, *options)
    assert ended.exit_code == 0, ended.stdout
    return json.loads(report.read_text()), onnx.load(output)


def test_every_kind_is_listed(tmp_path):
    listed = json.loads(run("inspect", model(tmp_path), "--json").stdout)["layers"]
    assert {row["name"] for row in listed if row["eligible"]} == POINTWISE | CP3
    assert all(row["macs"] for row in listed)
    macs = {row["name"]: row["macs"] for row in listed}
    assert (macs["rows"], macs["head"], macs["groups"]) == (64 * 36, 64, 8 * 4 * 9 * 36)


def test_every_kind_is_timed(tmp_path):
    listed = json.loads(run("inspect", model(tmp_path), "--profile", "--json").stdout)["layers"]
    assert all(row["ms"] > 0 for row in listed if row["eligible"])


@pytest.mark.parametrize("calibrated", [False, True])
def test_exact_factors_leave_the_outputs_alone(tmp_path, calibrated):
    seen = ["--calibration", tmp_path / "seen.npz"] if calibrated else []
    report, made = optimized(tmp_path, "--form", "svd", "--rank", "*=8", *seen)
    replaced = {s["name"] for s in report["sites"] if s["decision"] == "svd"}
    assert replaced == POINTWISE | CP3
    assert report["verification"]["relative_l2"] < 1e-5
    kept = {s["name"]: s["reason"] for s in report["sites"] if s["decision"] == "kept"}
    assert kept["half"] == "a Gemm with alpha=0.5; plain ones are handled"
    onnx.checker.check_model(made, full_check=True)
    x = np.random.default_rng(2).standard_normal(SHAPE).astype("f")
    before, after = (
        ort.InferenceSession(tmp_path / name).run(None, {"x": x})[0]
        for name in ("model.onnx", "out.onnx")
    )
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("calibrated", [False, True])
def test_windows_of_any_dimension_and_groups_become_cp3(tmp_path, calibrated):
    seen = ["--calibration", tmp_path / "seen.npz"] if calibrated else []
    report, made = optimized(tmp_path, "--form", "cp3", "--rank", "*=8", *seen)
    assert {s["name"] for s in report["sites"] if s["decision"] == "cp3"} == CP3
    assert report["verification"]["ok"]
    assert report["verification"]["relative_l2"] < 1e-5
    groups = [n for n in made.graph.node if n.name.startswith("groups/cp/")]
    assert [next(a.i for a in n.attribute if a.name == "group") for n in groups] == [2, 8, 2]
    macs = {s["name"]: (s["macs_before"], s["macs_after"]) for s in report["sites"]}
    assert macs["groups"] == (8 * 4 * 9 * 36, (8 * 4 + 8 * 9 + 8 * 4) * 36)
    assert macs["line"] == (8 * 8 * 3 * 36, (64 + 24 + 64) * 36)


def test_multiply_adds_of_products_are_counted_alike_before_and_after(tmp_path):
    report, _ = optimized(tmp_path, "--form", "svd", "--rank", "*=4")
    macs = {s["name"]: (s["macs_before"], s["macs_after"]) for s in report["sites"]}
    assert macs["rows"] == macs["both"] == (64 * 36, 64 * 36)
    assert macs["head"] == (64, 64)


def test_a_bias_makes_up_for_what_a_product_loses(tmp_path):
    """On the calibration data the mean of a truncated product is that of the original."""
    seen = ("--calibration", tmp_path / "seen.npz")
    _, made = optimized(tmp_path, "--form", "svd", "--rank", "head=2", "--include", "head", *seen)
    assert [n.op_type for n in made.graph.node if n.name.startswith("head/cp")] == [
        "MatMul",
        "Gemm",
    ]
    feeds = {"x": np.load(tmp_path / "seen.npz")["x"]}
    before, after = (
        ort.InferenceSession(tmp_path / name).run(None, feeds)[0]
        for name in ("model.onnx", "out.onnx")
    )
    assert np.abs(before - after).max() > 1e-3
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=1e-5)


def test_a_search_without_a_form_for_a_site_says_why_it_was_kept(tmp_path):
    report = tmp_path / "run.json"
    options = ["--form", "cp3", "--include", "rows", "--include", "point"]
    quick = ["--threads", 1, "--jobs", 1, "--iterations", 8, "--report", report]
    ended = run("optimize", model(tmp_path), "-o", tmp_path / "out.onnx", *options, *quick)
    assert ended.exit_code == 1
    sites = {s["name"]: s["reason"] for s in json.loads(report.read_text())["sites"]}
    assert sites["rows"] == sites["point"] == "a 1×1 kernel has no window to separate"
    assert sites["whole"] == "left out by --include or --exclude"
