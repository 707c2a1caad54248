"""A model as a torch module: its weights by name, its statistics, and what it refuses."""

import copy
import pathlib

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import written
from written import weight

from onnxcp.errors import DataError, ModelError, ParityError, UnsupportedError, UsageError
from onnxcp.graph import io, sites
from onnxcp.graph.shapes import infer
from onnxcp.graph.splice import rewrite
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner

torch = pytest.importorskip("torch")

from onnxcp.torchgraph.module import Network
from onnxcp.torchgraph.operators.table import OPERATORS
from onnxcp.torchgraph.parity import (
    check_parity,
    outputs,
)
from onnxcp.torchgraph.support import unsupported

DIGITS = pathlib.Path(__file__).parents[2] / "models/digits.onnx"
TWO = """
    a = Conv <pads: ints = [1, 1, 1, 1]> (x, "net.0/w.weight")
    b = Relu (a)
    c = Conv <pads: ints = [1, 1, 1, 1]> (b, "net.0/w.weight", "forward")
    y = Sigmoid (c)
"""
SHARED = {"net.0/w.weight": weight(4, 4, 3, 3), "forward": weight(4)}
NORMALIZED = "y = BatchNormalization <epsilon: float = 0.001> (x, scale, bias, mean, var)"
STATISTICS = {
    "scale": np.array([1, 2, 0.5, 1]),
    "bias": np.array([0.0, 1, 2, -1]),
    "mean": np.zeros(4),
    "var": np.ones(4),
}
TARGET = Target.named("cpu", 1)


def loaded(tmp_path, nodes, tensors, *interface, **how):
    """A model of ONNX text, in which a name in quotes may hold any character."""
    plain = {name: f"t{place}" for place, name in enumerate(tensors)}
    for name, short in plain.items():
        nodes = nodes.replace(f'"{name}"', short)
    given = {plain[n] if f"t{i}" in nodes else n: v for i, (n, v) in enumerate(tensors.items())}
    proto = io.load(written.model(tmp_path / "m.onnx", nodes, given, *interface, **how)).proto
    back = {short: name for name, short in plain.items()}
    for tensor in proto.graph.initializer:
        tensor.name = back.get(tensor.name, tensor.name)
    for node in proto.graph.node:
        node.input[:] = [back.get(name, name) for name in node.input]
    return proto


def image(*shape, seed=0):
    drawn = np.random.default_rng(seed).standard_normal(shape or (2, 4, 9, 8))
    return drawn.astype(np.float32)


def runner(proto):
    return open_runner(proto.SerializeToString(), TARGET)


def stored(proto):
    return {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}


def test_names_with_dots_slashes_and_those_of_methods_are_weights(tmp_path):
    network = Network(loaded(tmp_path, TWO, SHARED))
    assert set(network.weights()) == {"net.0/w.weight", "forward"}
    assert network({"x": torch.from_numpy(image())})[0].shape == (2, 4, 9, 8)


def test_a_weight_of_two_nodes_is_one_parameter_with_both_gradients(tmp_path):
    proto = loaded(tmp_path, TWO, SHARED)
    network = Network(proto)
    assert len(list(network.parameters())) == 2
    (y,) = network({"x": torch.from_numpy(image())})
    y.sum().backward()
    kernel = torch.tensor(stored(proto)["net.0/w.weight"], requires_grad=True)
    bias = torch.tensor(stored(proto)["forward"])
    inner = torch.relu(torch.conv2d(torch.from_numpy(image()), kernel, padding=1))
    torch.sigmoid(torch.conv2d(inner, kernel, bias, padding=1)).sum().backward()
    torch.testing.assert_close(network.weights()["net.0/w.weight"].grad, kernel.grad)


def test_only_named_weights_are_trained(tmp_path):
    network = Network(loaded(tmp_path, TWO, SHARED), ["forward"])
    assert [n for n, w in network.weights().items() if w.requires_grad] == ["forward"]


@pytest.mark.parametrize("name", ["nothing", "y", "x"])
def test_what_is_no_weight_is_not_trained(tmp_path, name):
    with pytest.raises(UsageError, match=f"weight '{name}': the model's main graph stores no"):
        Network(loaded(tmp_path, TWO, SHARED), [name])


def test_statistics_are_not_trained(tmp_path):
    proto = loaded(tmp_path, NORMALIZED, STATISTICS)
    with pytest.raises(UsageError, match="'mean' is a statistic of a batch normalization"):
        Network(proto, ["mean"])
    trained = {n for n, w in Network(proto).weights().items() if w.requires_grad}
    assert trained == {"scale", "bias"}


def test_a_constant_may_be_trained_if_named(tmp_path):
    nodes = "s = Constant <value: tensor = float {3}> () y = Mul (x, s)"
    proto = loaded(tmp_path, nodes, {})
    assert not Network(proto).weights()
    network = Network(proto, ["s"])
    network({"x": torch.from_numpy(image())})[0].sum().backward()
    assert network.weights()["s"].grad == pytest.approx(image().sum(), rel=1e-4)


def test_weights_go_out_and_come_back_by_name(tmp_path):
    proto = loaded(tmp_path, TWO, SHARED)
    network, changed = Network(proto), {n: 2 * a for n, a in stored(proto).items()}
    for name, array in stored(proto).items():
        assert network.weights()[name].detach().numpy().tobytes() == array.tobytes()
    network.load({n: torch.from_numpy(a) for n, a in changed.items()})
    made = copy.deepcopy(proto)
    for tensor in made.graph.initializer:
        tensor.raw_data = network.weights()[tensor.name].detach().numpy().tobytes()
    (wanted,), (got,) = runner(made)({"x": image()}), outputs(network, {"x": image()})
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    network = Network(loaded(tmp_path, TWO, SHARED))
    with pytest.raises(UsageError, match=r"weight 'nothing': the model has no weight"):
        network.load({"nothing": torch.zeros(4)})
    with pytest.raises(UsageError, match=r"has the shape \(3,\), not \(4,\)"):
        network.load({"forward": torch.zeros(3)})


def test_a_copy_shares_nothing(tmp_path):
    network = Network(loaded(tmp_path, TWO, SHARED))
    teacher = copy.deepcopy(network)
    network.load({"forward": torch.ones(4)})
    fed = {"x": torch.from_numpy(image())}
    assert not torch.equal(network(fed)[0], teacher(fed)[0])


def test_halves_keep_their_bits(tmp_path):
    tensors = {"net.0/w.weight": SHARED["net.0/w.weight"], "forward": SHARED["forward"]}
    proto = loaded(tmp_path, TWO, tensors, dtype=np.float16)
    network = Network(proto)
    for name, array in stored(proto).items():
        assert network.weights()[name].detach().numpy().tobytes() == array.tobytes()
    feeds = {"x": image().astype(np.float16)}
    assert check_parity(network, runner(proto), feeds, 5e-3) > 0


def test_tensors_between_nodes_are_returned_on_demand(tmp_path):
    network = Network(loaded(tmp_path, TWO, SHARED))
    _, b, a = network({"x": torch.from_numpy(image())}, ["b", "a"])
    assert torch.equal(b, torch.relu(a))
    assert not torch.equal(a, b)
    with pytest.raises(UsageError, match="tensor 'z'"):
        network({"x": torch.from_numpy(image())}, ["z"])


def test_wrong_feeds_are_named(tmp_path):
    network = Network(loaded(tmp_path, TWO, SHARED))
    with pytest.raises(DataError, match="input 'x' is missing"):
        network({})
    with pytest.raises(DataError, match="'z' is not an input; the model takes x"):
        network(dict.fromkeys("xz", torch.zeros(1)))
    with pytest.raises(ModelError, match=r"node 'a' \(Conv\): PyTorch fails: .*\(2, 3, 9, 8\)"):
        network({"x": torch.zeros(2, 3, 9, 8)})


def test_shapes_are_computed_without_breaking_gradients(tmp_path):
    nodes = """
        s = Shape (x)  n = Gather <axis = 0> (s, zero)  one = Unsqueeze <axes = [0]> (n)
        t = Concat <axis = 0> (one, rest)  flat = Reshape (x, t)  y = Gemm (flat, w, b)
    """
    tensors = {
        **{"zero": np.array(0), "rest": np.array([-1])},
        **{"w": weight(288, 3), "b": weight(3)},
    }
    proto = loaded(tmp_path, nodes, tensors, "float[N,4,9,8] x) => (float[N,3] y", opset=11)
    network = Network(proto)
    check_parity(network, runner(proto), {"x": image(3, 4, 9, 8)}, 1e-5)
    network({"x": torch.from_numpy(image())})[0].sum().backward()
    assert network.weights()["w"].grad.abs().min() > 0
    assert set(network.weights()) == {"w", "b"}


BRANCHES = """
    s = Shape (x)  n = Gather <axis = 0> (s, zero)  one = Equal (n, two)
    y = If (one) <
        then_branch = t () => (float[N,4,9,8] p) { k = Constant <value: tensor = float {2}> ()
            p = Mul (x, k) },
        else_branch = e () => (float[N,4,9,8] q) { k = Constant <value: tensor = float {3}> ()
            r = Mul (x, k) q = Mul (r, w) }
    >
"""


@pytest.mark.parametrize(("batch", "factor"), [(2, 2), (3, 15)])
def test_an_if_runs_the_branch_of_its_condition(tmp_path, batch, factor):
    tensors = {"zero": np.array(0), "two": np.array(2), "w": np.array([5.0])}
    proto = loaded(tmp_path, BRANCHES, tensors)
    feeds = {"x": image(batch, 4, 9, 8)}
    check_parity(Network(proto), runner(proto), feeds, 1e-6)
    np.testing.assert_allclose(outputs(Network(proto), feeds)[0], factor * feeds["x"], rtol=1e-6)


def test_local_functions_are_run(tmp_path):
    function = '<domain: "local", opset_import: ["" : 13]> twice (a) => (b) { b = Add (a, a) }'
    proto = loaded(tmp_path, "y = local.twice (x)", {}, functions=function)
    assert outputs(Network(proto), {"x": image()})[0].tobytes() == (2 * image()).tobytes()


UNSUPPORTED = {
    "y = Hardmax (x)": r"node 'y' \(Hardmax\): an operator that is not covered",
    "y, i = MaxPool <kernel_shape = [1, 1]> (x)": r"node 'y' \(MaxPool\): also outputs positions",
    "h = Cast <to = 8> (x) y = Cast <to = 1> (h)": r"\(Cast\): casts to STRING",
    "y = local.f (x)": r"node 'y' \(local\.f\): an operator that is not covered",
}


@pytest.mark.parametrize("nodes", UNSUPPORTED, ids=range(len(UNSUPPORTED)))
def test_what_torch_can_not_compute_is_named(tmp_path, nodes):
    path = tmp_path / "m.onnx"
    header = '<ir_version: 8, opset_import: ["" : 13, "local" : 1]> g (float[4] x) => (float[4] y)'
    path.write_bytes(onnx.parser.parse_model(f"{header} {{ {nodes} }}").SerializeToString())
    proto = onnx.load(path)
    with pytest.raises(UnsupportedError, match=UNSUPPORTED[nodes]) as raised:
        Network(proto)
    assert raised.value.exit_code == 3
    assert len(unsupported(proto)) == 1


def test_three_of_many_nodes_are_named_and_all_are_counted(tmp_path):
    nodes = "a = Hardmax (x) b = Hardmax (a) c = NonZero (b) d = Hardmax (b) y = Hardmax (d)"
    with pytest.raises(UnsupportedError, match=r"and 2 more \(in all 4 Hardmax, 1 NonZero\)"):
        Network(loaded(tmp_path, nodes, {}))


@pytest.mark.parametrize("opset", [6, 7])
def test_models_before_opset_7_are_not_read(tmp_path, opset):
    proto = loaded(tmp_path, "y = Relu (x)", {}, opset=opset)
    assert bool(unsupported(proto)) == (opset < 7)


def test_parity_names_the_first_node_that_differs(tmp_path, monkeypatch):
    proto = loaded(tmp_path, TWO, SHARED)
    network = Network(proto)
    assert check_parity(network, runner(proto), {"x": image()}, 1e-5) < 1e-5
    monkeypatch.setitem(OPERATORS, "Relu", lambda node, x: torch.relu(x) * 1.001)
    named = (
        r"output 'y' in PyTorch .* they differ from node 'b' \(Relu\) on; this is a bug in onnxcp"
    )
    with pytest.raises(ParityError, match=named) as raised:
        check_parity(network, runner(proto), {"x": image()}, 1e-5)
    assert raised.value.exit_code == 70


def test_parity_fails_on_other_weights(tmp_path):
    proto = loaded(tmp_path, TWO, SHARED)
    network = Network(proto)
    network.load({"forward": torch.zeros(4)})
    with pytest.raises(ParityError, match=r"node 'c' \(Conv\)"):
        check_parity(network, runner(proto), {"x": image()}, 1e-5)


def test_train_changes_nothing(tmp_path):
    network = Network(loaded(tmp_path, NORMALIZED, STATISTICS))
    before = outputs(network.eval(), {"x": image()})[0]
    assert outputs(network.train(), {"x": image()})[0].tobytes() == before.tobytes()
    assert network.weights()["mean"].tolist() == [0.0] * 4


def moments(*batches):
    """The averages of means and of unbiased variances."""
    axes = (0, 2, 3)
    means = [b.mean(axes) for b in batches]
    return np.mean(means, 0), np.mean([b.var(axes, ddof=1) for b in batches], 0)


def test_recalibration_averages_the_statistics_of_batches(tmp_path):
    network = Network(loaded(tmp_path, NORMALIZED, STATISTICS))
    batches = [3 * image(seed=seed) + seed for seed in range(4)]
    assert network.recalibrate({"x": torch.from_numpy(b)} for b in batches) == 4
    mean, var = moments(*batches)
    np.testing.assert_allclose(network.weights()["mean"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(network.weights()["var"], var, rtol=1e-4)
    made = outputs(network, {"x": batches[0]})[0]  # by the averages, not by its own
    scaled = (batches[0] - mean[:, None, None]) / np.sqrt(var + 1e-3)[:, None, None]
    wanted = scaled * STATISTICS["scale"][:, None, None] + STATISTICS["bias"][:, None, None]
    np.testing.assert_allclose(made, wanted, rtol=1e-3, atol=1e-4)


def test_without_batches_statistics_stay(tmp_path):
    network = Network(loaded(tmp_path, NORMALIZED, STATISTICS))
    assert network.recalibrate([]) == 0
    assert network.weights()["var"].tolist() == [1.0] * 4


def test_batch_statistics_are_used_and_kept_as_a_running_average(tmp_path):
    network = Network(loaded(tmp_path, NORMALIZED, STATISTICS))
    network.use_batch_statistics(0.25)
    x = 3 * image() + 1
    (y,) = network({"x": torch.from_numpy(x)})
    means = y.mean((0, 2, 3)).detach().numpy()
    np.testing.assert_allclose(means, STATISTICS["bias"], atol=1e-5)
    mean, var = moments(x)
    np.testing.assert_allclose(network.weights()["mean"], 0.25 * mean, rtol=1e-4)
    np.testing.assert_allclose(network.weights()["var"], 0.75 + 0.25 * var, rtol=1e-4)
    y.square().sum().backward()
    assert network.weights()["scale"].grad.abs().min() > 0
    network.use_stored_statistics()
    assert not torch.equal(network({"x": torch.from_numpy(x)})[0], y)


def test_statistics_of_two_normalizations_are_left_as_they_are(tmp_path):
    twice = NORMALIZED.replace("y =", "a =") + NORMALIZED.replace("(x", "(a")
    network = Network(loaded(tmp_path, twice, STATISTICS))
    network.recalibrate([{"x": torch.from_numpy(image())}])
    assert network.weights()["mean"].tolist() == [0.0] * 4
    assert not network.weights()["mean"].requires_grad


FOLDED = "a = Conv <pads: ints = [1, 1, 1, 1]> ({inputs}) " + NORMALIZED.replace("(x", "(a")


@pytest.mark.parametrize("inputs", ["x, w", "x, w, b"])
def test_a_normalization_does_the_same_folded_into_a_convolution(tmp_path, inputs):
    fixed = {**STATISTICS, "mean": np.arange(4.0), "var": np.arange(1.0, 5)}
    stored = {"w": weight(4, 4, 3, 3), **({"b": weight(4)} if "b" in inputs else {}), **fixed}
    network = Network(loaded(tmp_path, FOLDED.format(inputs=inputs), stored))
    feeds = {"x": torch.from_numpy(image())}
    computed = []
    for also in ((), ("a",)):  # a tensor that is asked for is computed as it is
        y, *_ = network(feeds, also)
        y.square().sum().backward()
        trained = [t for t in network.weights().values() if t.requires_grad]
        computed.append([y.detach(), *(t.grad.clone() for t in trained)])
        network.zero_grad()
    assert network._foldable.keys() == {"a"}
    for folded, plain in zip(*computed, strict=True):
        torch.testing.assert_close(folded, plain, rtol=1e-4, atol=1e-4)


def test_what_others_read_is_not_folded(tmp_path):
    nodes = FOLDED.format(inputs="x, w").replace("y =", "c =") + " y = Add (a, c)"
    network = Network(loaded(tmp_path, nodes, {"w": weight(4, 4, 3, 3), **STATISTICS}))
    assert not network._foldable


def test_one_value_for_each_channel_has_no_statistics(tmp_path):
    network = Network(loaded(tmp_path, NORMALIZED, STATISTICS))
    with pytest.raises(DataError, match=r"node 'y' .*give more samples at once"):
        network.recalibrate([{"x": torch.ones(1, 4, 1, 1)}])


def test_every_factor_of_a_chain_is_a_weight_with_a_gradient():
    proto = io.load(DIGITS).proto
    fed, shape = proto.graph.input[0].name, (4, 1, 8, 8)
    found, _ = sites.find(proto, infer(proto, {fed: shape}))
    taken = [s for s in found if max(s.shape[2:], default=1) > 1]
    chains = {s.name: written.chain(s, "cp3") for s in taken}
    made = rewrite(proto, chains, taken, metadata={}).proto
    network, x = Network(made), image(*shape)
    check_parity(network, runner(made), {fed: x}, 1e-5)
    network({fed: torch.from_numpy(x)})[0].square().sum().backward()
    assert len(taken) > 1
    assert len(network.weights()) > len(Network(proto).weights())
    for name, tensor in network.weights().items():
        if tensor.requires_grad:
            assert torch.isfinite(tensor.grad).all(), name
            assert tensor.grad.abs().sum() > 0, name


def test_numbers_stay_on_the_cpu_when_the_weights_move(tmp_path):
    """The device `meta` has no values, so that one read or mixed with the CPU's fails."""
    nodes = """
        s = Shape (x)  n = Gather <axis = 0> (s, zero)  one = Unsqueeze <axes = [0]> (n)
        t = Concat <axis = 0> (one, rest)  flat = Reshape (x, t)  f = Cast <to = 1> (n)
        y = Mul (flat, f)
    """
    tensors = {"zero": np.array(0), "rest": np.array([-1])}
    proto = loaded(tmp_path, nodes, tensors, "float[N,4,9,8] x) => (float[N,288] y", opset=11)
    (y,) = Network(proto).to("meta")({"x": torch.zeros(2, 4, 9, 8, device="meta")})
    assert (y.device.type, tuple(y.shape)) == ("meta", (2, 288))


def test_a_local_function_does_not_take_the_place_of_the_standards_operator(tmp_path):
    """As in ONNX Runtime, whichever of the two the standard would have it be."""
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2,3] x) => (float[2,3] y) '
        '{ y = Relu (x) } <domain: "", opset_import: ["" : 17]> Relu (a) => (b) { b = Neg (a) }'
    )
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    (found,) = Network(proto)({"x": torch.from_numpy(x)})
    np.testing.assert_array_equal(found.detach().numpy(), expected)
