"""Chains of every form keep what they compute, and lose less of it in int8."""

import numpy as np
import onnx
import pytest
from int8_models import DIGITS, outputs, relative, samples
from written import model, weight, write

from onnxcp.graph import io
from onnxcp.graph.splice import with_outputs
from onnxcp.quantization import equalize
from onnxcp.quantization.equalize import ALPHAS, LASTING, Seen, noise, scales
from onnxcp.quantization.fold import folded
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner

CONV = "[first] a = Conv <pads = [1, 1, 1, 1]> (x, w) [relu] y = Relu (a)"
WIDE = "float[N,4,9] x) => (float[N,a,b] y"
LINE = "[first] a = Conv <pads = [1, 1]> (x, w) [relu] y = Relu (a)"
GROUPS = "[first] a = Conv <pads = [1, 1, 1, 1], group = 2> (x, w) [relu] y = Relu (a)"
SHARED = """[first] a = Conv <pads = [1, 1, 1, 1]> (x, w)
    [turned] n = Neg (x) [other] b = Conv <pads = [1, 1, 1, 1]> (n, w) [join] y = Sub (a, b)"""
GEMM = "[first] a = Gemm (x, w) [relu] y = Relu (a)"
MATMUL = "[first] a = MatMul (x, w) [relu] y = Relu (a)"
IMAGE, ROW = "float[N,4,9,8] x) => (float[N,a,b,c] y", "float[N,24] x) => (float[N,a] y"
KERNEL, MATRIX = weight(6, 4, 3, 3), weight(24, 20)
CHAINS = {  # nodes, kernel, form, interface, shape of a sample, number of links
    "cp3": (CONV, KERNEL, "cp3", IMAGE, (4, 9, 8), 2),
    "cp4": (CONV, KERNEL, "cp4", IMAGE, (4, 9, 8), 3),
    "svd": (CONV, KERNEL, "svd", IMAGE, (4, 9, 8), 1),
    "tucker2": (CONV, KERNEL, "tucker2", IMAGE, (4, 9, 8), 2),
    "tkd": (CONV, KERNEL, "tkd", IMAGE, (4, 9, 8), 2),
    "grouped cp3": (GROUPS, weight(6, 2, 3, 3), "cp3", IMAGE, (4, 9, 8), 2),
    "grouped tucker2": (GROUPS, weight(6, 2, 3, 3), "tucker2", IMAGE, (4, 9, 8), 2),
    "one dimension": (LINE, weight(6, 4, 3), "cp3", WIDE, (4, 9), 2),
    "Gemm": (GEMM, MATRIX, "svd", ROW, (24,), 1),
    "MatMul": (MATMUL, MATRIX, "svd", ROW, (24,), 1),
}  # fmt: skip


def chained(tmp_path, nodes, kernel, form, interface, shape, sites=("first",)):
    """A folded model with chains whose inner channels are of very different sizes."""
    reference = model(tmp_path / "reference.onnx", nodes, {"w": kernel}, interface)
    path = write(reference, tmp_path / "m.onnx", dict.fromkeys(sites, form), (1, *shape))
    return folded(unbalanced(io.load(path).proto), "m.onnx")


def unbalanced(proto):
    """The model with 1, 8, 64, … in its first stages' rows."""
    for tensor in proto.graph.initializer:
        if tensor.name == next(t.name for t in proto.graph.initializer if "/cp/" in t.name):
            values = onnx.numpy_helper.to_array(tensor)
            is_matrix = any(
                n.op_type != "Conv" and tensor.name in n.input for n in proto.graph.node
            )
            rows = 8.0 ** (np.arange(values.shape[1 if is_matrix else 0]) % 4)
            rows = rows if is_matrix else rows.reshape(-1, *[1] * (values.ndim - 1))
            made = (values * rows).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(made, tensor.name))
    return proto


def watched(proto, links, given):
    runner = open_runner(
        with_outputs(proto, [link.tensor for link in links]).SerializeToString(),
        Target.named("cpu", 1),
    )
    names = {link.tensor for link in links}

    def run(feeds):
        seen = dict(zip(runner.outputs, runner(feeds), strict=True))
        return {n: v for n, v in seen.items() if n in names}

    return equalize.watch(run, given.batches(4), links)


def equalised(proto, given):
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    links = equalize.links(made.graph, [n.name for n in made.graph.node])
    equalize.equalise(made.graph, links, watched(made, links, given))
    return made, links


@pytest.mark.parametrize("row", CHAINS.values(), ids=CHAINS)
def test_the_float_model_computes_the_same_with_ranges_closer_together(tmp_path, row):
    *parts, count = row
    proto, given = chained(tmp_path, *parts), samples(shape=parts[-1])
    made, links = equalised(proto, given)
    assert len(links) == count
    feeds = given.read(0, 16)
    assert relative(outputs(proto, feeds), outputs(made, feeds)) < 1e-6
    before, after = (watched(m, links, given)[links[0].tensor] for m in (proto, made))
    assert spread(after) < spread(before) / 5


def spread(seen):
    width = np.maximum(seen.high, -seen.low)
    return width.max() / width.min()


def test_a_bias_between_stages_is_scaled_with_its_channels(tmp_path):
    proto = chained(tmp_path, *CHAINS["cp3"][:-1])
    for role in ("inputs", "window"):
        node = next(n for n in proto.graph.node if n.name == f"first/cp/{role}")
        node.input.append(f"{role} bias")
        values = np.arange(4, dtype=np.float32) - 1
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, f"{role} bias"))
    given = samples()
    made, links = equalised(proto, given)
    feeds = given.read(0, 16)
    assert len(links) == 2
    assert relative(outputs(proto, feeds), outputs(made, feeds)) < 1e-6


def test_a_kernel_of_two_sites_is_scaled_for_each(tmp_path):
    parts = (SHARED, KERNEL, "cp3", IMAGE, (4, 9, 8))
    proto = chained(tmp_path, *parts, sites=("first", "other"))
    weights = [n.input[1] for n in proto.graph.node if n.name.endswith("/cp/inputs")]
    assert len(weights) == 2
    assert len(set(weights)) == 1
    given = samples()
    made, _ = equalised(proto, given)
    feeds = given.read(0, 16)
    assert relative(outputs(proto, feeds), outputs(made, feeds)) < 1e-6
    after = [n.input[1] for n in made.graph.node if n.name.endswith("/cp/inputs")]
    assert len(set(after)) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda g: g.output.append(onnx.ValueInfoProto(name="first/cp/inputs_out")),
        lambda g: g.node.add(op_type="Relu", input=["first/cp/inputs_out"], output=["more"]),
        lambda g: setattr(g.node[1], "name", "other/cp/window"),
        lambda g: g.initializer.pop(0),
    ],
    ids=["an output", "read twice", "of another site", "computed weights"],
)
def test_channels_that_are_not_free_are_left_alone(tmp_path, change):
    proto = chained(tmp_path, *CHAINS["cp3"][:-1])
    assert [n.name for n in proto.graph.node[:2]] == ["first/cp/inputs", "first/cp/window"]
    change(proto.graph)
    found = equalize.links(proto.graph, [n.name for n in proto.graph.node])
    assert "first/cp/inputs_out" not in {link.tensor for link in found}


def test_stages_that_stay_in_float_are_left_alone(tmp_path):
    proto = chained(tmp_path, *CHAINS["cp3"][:-1])
    assert equalize.links(proto.graph, ["relu"]) == []
    found = equalize.links(proto.graph, ["first/cp/outputs"])
    assert [link.tensor for link in found] == ["first/cp/window_out"]


def test_a_model_without_chains_has_no_links():
    proto = io.load(DIGITS).proto
    assert equalize.links(proto.graph, [n.name for n in proto.graph.node]) == []


def seen(low, high, power=None):
    low, high = np.asarray(low, float), np.asarray(high, float)
    return Seen(low, high, (high - low) ** 2 / 100 if power is None else np.asarray(power, float))


def test_ranges_before_a_depthwise_stage_become_equal():
    found = scales(seen([-1, -2, -8], [1, 2, 8]), np.ones((3, 1, 3, 3)), 3)
    np.testing.assert_allclose(found / found[0], [1, 1 / 2, 1 / 8])


def test_a_channel_is_turned_to_its_larger_side_and_the_range_with_it():
    found = scales(seen([-1, -4], [4, 1]), np.ones((2, 1, 3, 3)), 2)
    np.testing.assert_allclose(found, [1, -1])


def test_channels_without_values_or_readers_are_scaled_as_the_others():
    kernel = np.ones((5, 4, 1, 1))
    kernel[:, 3] = 0
    found = scales(seen([-1, -1, 0, -1], [1, 1, 0, 1]), kernel, 1)
    np.testing.assert_allclose(found, 1)
    np.testing.assert_array_equal(scales(seen([0, 0], [0, 0]), np.ones((5, 2)), 1), 1)


def test_the_choice_adds_the_least_noise_of_those_tried():
    rng = np.random.default_rng(0)
    high = np.exp(rng.standard_normal(8))
    kernel = rng.standard_normal((5, 8, 1, 1)) * np.exp(rng.standard_normal(8))[:, None, None]
    given = seen(-high, high)
    grouped = kernel.reshape(1, 5, 8, 1)
    columns = np.abs(grouped).max((0, 1, 3))

    def added(scale):
        passing, lasting = noise(scale, given.low, given.high, given.power, grouped)
        return passing + LASTING * lasting

    found = added(scales(given, kernel, 1))
    for alpha in ALPHAS:
        assert found <= added(high ** (alpha - 1) * columns**alpha) * (1 + 1e-9)


def test_the_estimate_of_noise_is_what_rounding_adds():
    """Activations and weights rounded here, independently, and the outputs compared."""
    rng = np.random.default_rng(0)
    kernel, rows = rng.standard_normal((20, 30)), rng.standard_normal((4000, 30))
    given = seen(rows.min(0), rows.max(0), np.square(rows).mean(0))
    step = (given.high.max() - given.low.min()) / 255
    steps = np.abs(kernel).max(1, keepdims=True) / 127
    rounded = step * np.round(rows / step) @ (steps * np.round(kernel / steps)).T
    added = np.square(rounded - rows @ kernel.T).sum(1).mean()
    estimate = noise(np.ones(30), given.low, given.high, given.power, kernel.reshape(1, 20, 30, 1))
    assert sum(estimate) == pytest.approx(added, rel=0.1)
