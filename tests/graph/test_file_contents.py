"""What a report says of sizes is what lies in the files."""

import math

import numpy as np
import onnx
import pytest
from asked import settings
from written import low_rank, model

from onnxcp.graph import io
from onnxcp.graph.file_contents import stored
from onnxcp.optimization.pipeline import optimize
from onnxcp.report.optimize import to_text

pytestmark = pytest.mark.usefixtures("quiet")
SHARED = "[a] b = Conv (x, w) c = Relu (b) [d] y = Conv (c, w)"
INTERFACE = "float[1,64,16,16] x) => (float[1,64,16,16] y"


def numbers(path):
    """Numbers in a file's tensors."""
    return sum(math.prod(t.dims) for t in onnx.load(path).graph.initializer)


def optimized(tmp_path, *ranks):
    path = model(tmp_path / "m.onnx", SHARED, {"w": low_rank(1)}, INTERFACE)
    output = tmp_path / "o.onnx"
    return path, output, optimize(settings(path, output, rank=ranks))


@pytest.mark.parametrize("ranks", [("a=16",), ("*=16",)], ids=["one of two", "both"])
def test_weights_that_layers_share_are_counted_as_they_lie_in_the_files(ranks, tmp_path):
    path, output, report = optimized(tmp_path, *ranks)
    assert report.exit_code == 0
    assert report.model.parameters_before == numbers(path) == 64 * 64
    assert report.model.parameters_after == numbers(output)
    assert (report.model.bytes_before, report.model.bytes_after) == (
        path.stat().st_size,
        output.stat().st_size,
    )


def test_a_weight_that_another_layer_still_reads_stays_and_is_said_to(tmp_path):
    _, output, report = optimized(tmp_path, "a=16")
    assert report.model.still_read == ("a",)
    assert report.model.parameters_after == 64 * 64 + 2 * 64 * 16
    assert "weights of a stay in the file" in " ".join(to_text(report, 120).split())
    assert "w" in {t.name for t in onnx.load(output).graph.initializer}


def test_a_weight_that_nothing_reads_any_more_is_not_said_to_stay(tmp_path):
    _, _, report = optimized(tmp_path, "*=16")
    assert report.model.still_read == ()


def test_external_data_count(tmp_path):
    path = model(tmp_path / "m.onnx", SHARED, {"w": low_rank(1)}, INTERFACE)
    inside, loaded = stored(path), io.load(path)
    io.save(loaded.proto, tmp_path / "e.onnx", frozenset({"w"}))
    outside = stored(tmp_path / "e.onnx")
    assert outside.parameters == inside.parameters == 64 * 64
    assert outside.size - (tmp_path / "e.onnx").stat().st_size == 4 * 64 * 64
    assert np.isclose(outside.size, inside.size, rtol=0.02)
