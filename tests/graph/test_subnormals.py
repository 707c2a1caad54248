"""Weights near zero that make a model slow are found before anything is timed."""

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from onnxcp.cli import app
from onnxcp.graph import subnormals

TINY = np.finfo(np.float32).tiny


def model(path, scale, share=0.5, dtype=np.float32):
    """A convolution of which a share of the numbers is scaled."""
    weight = np.random.default_rng(0).uniform(1, 2, (16, 8, 3, 3)).astype(dtype)
    weight.reshape(-1)[: int(share * weight.size)] *= dtype(scale)
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    value, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    conv = node("Conv", ["x", "w"], ["y"], "conv", pads=[1] * 4)
    ends = value("x", kind, [1, 8, 9, 9]), value("y", kind, [1, 16, 9, 9])
    stored = [onnx.numpy_helper.from_array(weight, "w")]
    graph = onnx.helper.make_graph([conv], "g", ends[:1], ends[1:], stored)
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets), path)
    return path


@pytest.mark.parametrize(
    ("scale", "dtype", "share"),
    [
        (TINY / 4, np.float32, 0.5),
        (1.1 * TINY, np.float32, 0),
        (0, np.float32, 0),
        (TINY / 4, np.float64, 0),
        (5e-309, np.float64, 0.5),
    ],
)
def test_a_number_is_subnormal_below_the_smallest_normal_one_of_its_type(
    tmp_path, scale, dtype, share
):
    found = subnormals.shares(onnx.load(model(tmp_path / "m.onnx", scale, dtype=dtype)))
    assert found == ({"w": share} if share else {})


def test_inspect_names_them_and_the_remedy(tmp_path):
    path = model(tmp_path / "m.onnx", TINY / 4)
    shown = CliRunner().invoke(app, ["inspect", str(path)], env={"COLUMNS": "2000"})
    assert shown.exit_code == 0
    words = " ".join(shown.stdout.split())
    assert "50.0% of the numbers of weight 'w' are subnormal" in words
    assert "set_denormal_as_zero" in words


def test_optimize_says_so_before_it_times_anything(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "onnxcp.optimization.pipeline.find_outcome", lambda run: pytest.fail("begun")
    )
    path, out = model(tmp_path / "m.onnx", TINY / 4), tmp_path / "out.onnx"
    ended = CliRunner().invoke(app, ["optimize", str(path), "-o", str(out)])
    assert ended.exit_code == 2
    assert "subnormal" in ended.stderr
    assert "set_denormal_as_zero" in ended.stderr
    assert not out.exists()


@pytest.mark.parametrize(("scale", "share"), [(TINY / 4, 0.0005), (0, 0.5)])
def test_few_of_them_or_zeros_are_nothing_to_speak_of(tmp_path, scale, share):
    assert subnormals.note(onnx.load(model(tmp_path / "m.onnx", scale, share))) is None
