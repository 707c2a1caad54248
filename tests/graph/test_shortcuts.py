"""Strided slices with padded channels: found, written as convolutions that compute the same, in
a run only where that is faster, and known again by all that reads a rewritten model."""

import json

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from rounding import assert_same_sums, magnitude
from typer.testing import CliRunner

from onnxcp.cli import app
from onnxcp.graph import shapes, shortcuts
from onnxcp.graph.sites import find, shortcuts_before

END = 2**31 - 1
RNG = np.random.default_rng(0)


def network(width=16, size=8, dtype=np.float32, opset=13, ir=8, window=3, **numbers):
    """A block of twice the channels at half the size, as option A has it: x → conv → [conv,
    shortcut] → sum → pool → dense."""
    given = {
        "starts": [0, 0],
        "ends": [END, END],
        "axes": [2, 3],
        "steps": [2, 2],
        "pads": [0, width // 2, 0, 0, 0, width // 2, 0, 0],
        **numbers,
    }
    weights = {
        "w0": (width, 3, 3, 3),
        "w1": (2 * width, width, window, window),
        "dense": (2 * width, 10),
    }
    stored = [named(RNG.standard_normal(s).astype(dtype) / 9, n) for n, s in weights.items()]
    stored += [named(np.array(v, np.int64), name) for name, v in given.items()]
    stored.append(named(np.zeros((), dtype), "zero"))
    node = onnx.helper.make_node
    nodes = [
        node("Conv", ["x", "w0"], ["a"], "first", pads=[1] * 4),
        node("Relu", ["a"], ["r"], "relu"),
        node("Conv", ["r", "w1"], ["c"], "wide", pads=[window // 2] * 4, strides=[2, 2]),
        node("Slice", ["r", "starts", "ends", "axes", "steps"], ["s"], "slice"),
        node("Pad", ["s", "pads", "zero"], ["p"], "pad"),
        node("Add", ["c", "p"], ["sum"], "add"),
        node("GlobalAveragePool", ["sum"], ["g"], "pool"),
        node("Flatten", ["g"], ["f"], "flat"),
        node("MatMul", ["f", "dense"], ["y"], "dense"),
    ]
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    image = onnx.helper.make_tensor_value_info("x", kind, ["n", 3, size, size])
    result = onnx.helper.make_tensor_value_info("y", kind, ["n", 10])
    graph = onnx.helper.make_graph(nodes, "block", [image], [result], stored)
    graph.value_info.append(onnx.ValueInfoProto(name="s"))
    opsets = [onnx.helper.make_opsetid("", opset)]
    return onnx.helper.make_model(graph, ir_version=ir, opset_imports=opsets)


def named(values, name):
    return onnx.numpy_helper.from_array(values, name)


def straight(proto, size=8):
    known = shapes.infer(proto, {"x": (1, 3, size, size)})
    return shortcuts.rewritten(proto, {s.name: known[s.source][1] for s in shortcuts.find(proto)})


def image(proto, size=8):
    dtype = onnx.helper.tensor_dtype_to_np_dtype(proto.graph.input[0].type.tensor_type.elem_type)
    return {"x": np.random.default_rng(1).standard_normal((3, 3, size, size)).astype(dtype)}


def outputs(proto, size=8):
    """The result, and what comes out of the shortcut."""
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    shown.graph.output.append(onnx.ValueInfoProto(name="p"))
    return ReferenceEvaluator(shown).run(None, image(proto, size))


ROUNDED = (3 * 9 + 16 * 9) + 1 + 5 * 5 + 32  # convolutions, sum, mean and dense


def in_two_slices(proto):
    """As PyTorch exports x[:, :, ::2, ::2]: an axis at a time."""
    stored = {t.name: t for t in proto.graph.initializer}
    for name, values in (("starts", [0]), ("ends", [END]), ("steps", [2]), ("axes", [2])):
        stored[name].CopyFrom(named(np.array(values, np.int64), name))
    proto.graph.initializer.append(named(np.array([-1], np.int64), "last"))
    reads = ["h", "starts", "ends", "last", "steps"]
    second = onnx.helper.make_node("Slice", reads, ["s"], "second")
    proto.graph.node[3].output[0] = "h"
    proto.graph.node.insert(4, second)
    return proto


def in_constant_nodes(proto):
    for name in ("pads", "steps"):
        tensor = next(t for t in proto.graph.initializer if t.name == name)
        constant = onnx.helper.make_node("Constant", [], [name], value=tensor)
        proto.graph.initializer.remove(tensor)
        proto.graph.node.insert(0, constant)
    return proto


def without_names(proto):
    for node in proto.graph.node:
        node.name = ""
    return proto


def without_a_value(proto):
    del proto.graph.node[4].input[2], proto.graph.initializer[-1]
    return proto


TAKEN = {
    "as it is": lambda: network(),
    "of odd size": lambda: network(size=9),
    "more channels behind": lambda: network(
        axes=[2, 3], steps=[2, 2], pads=[0, 5, 0, 0, 0, 11, 0, 0]
    ),
    "all channels behind": lambda: network(pads=[0, 0, 0, 0, 0, 16, 0, 0]),
    "to the end of int64": lambda: network(ends=[2**63 - 1, 2**63 - 1]),
    "axes from the last": lambda: network(axes=[-2, -1]),
    "float64": lambda: network(dtype=np.float64),
    "float16": lambda: network(dtype=np.float16),
    "opset 18": lambda: network(opset=18),
    "in two slices": lambda: in_two_slices(network()),
    "from Constant nodes": lambda: in_constant_nodes(network()),
    "without names": lambda: without_names(network()),
    "without a value": lambda: without_a_value(network()),
}


@pytest.mark.parametrize("key", TAKEN)
def test_a_convolution_takes_the_place_and_computes_the_same(key):
    size = 9 if key == "of odd size" else 8
    proto = TAKEN[key]()
    before = proto.SerializeToString()
    made = straight(proto, size)
    assert proto.SerializeToString() == before
    onnx.checker.check_model(made, full_check=True)
    ops = [node.op_type for node in made.graph.node]
    assert (ops.count("Conv"), "Pad" in ops, "Slice" in ops, "Constant" in ops) == (3, 0, 0, 0)
    assert {t.name for t in made.graph.initializer} >= {"w0", "w1", "dense"}
    assert not {"starts", "ends", "axes", "steps", "pads", "zero", "last"} & {
        t.name for t in made.graph.initializer
    }
    assert not made.graph.value_info
    (result, shortcut), (before, sliced) = outputs(made, size), outputs(proto, size)
    np.testing.assert_array_equal(shortcut, sliced)  # a sum of one term and zeros is exact
    assert_same_sums(result, before, magnitude(proto, image(proto, size)), ROUNDED)
    (name,) = shortcuts_before(made)
    assert [s.name for s in shortcuts.find(proto)] == [name]
    assert shortcuts.find(made) == ()
    _, skips = find(made, shapes.infer(made, {"x": (1, 3, size, size)}))
    assert [s.layer.name for s in skips if s.code == "shortcut"] == [name]
    assert shortcuts.as_in(proto, made).SerializeToString() == made.SerializeToString()


def change(index, **fields):
    """A change of a node of the network."""

    def changed(proto):
        for name, value in fields.items():
            if name == "mode":
                proto.graph.node[index].attribute.add().CopyFrom(
                    onnx.helper.make_attribute("mode", value)
                )
            else:
                setattr(proto.graph.node[index], name, value)
        return proto

    return changed


def padded_by_one(proto):
    next(t for t in proto.graph.initializer if t.name == "zero").CopyFrom(
        named(np.float32(1), "zero")
    )
    return proto


def of_another_type(proto):
    """Convolutions in float16 alone."""
    for stored in proto.graph.initializer:
        if stored.name in ("w0", "w1"):
            values = onnx.numpy_helper.to_array(stored).astype(np.float16)
            stored.CopyFrom(named(values, stored.name))
    return proto


def read_twice(proto):
    proto.graph.node.append(onnx.helper.make_node("Neg", ["s"], ["n"]))
    return proto


def given_out(proto):
    proto.graph.output.append(onnx.ValueInfoProto(name="s"))
    return proto


def fed_pads(proto):
    tensor = next(t for t in proto.graph.initializer if t.name == "pads")
    proto.graph.initializer.remove(tensor)
    proto.graph.input.append(onnx.helper.make_tensor_value_info("pads", 7, [8]))
    return proto


def with_a_half(proto):
    """One of its convolutions in another type."""
    stored = next(t for t in proto.graph.initializer if t.name == "w0")
    stored.CopyFrom(named(onnx.numpy_helper.to_array(stored).astype(np.float16), "w0"))
    return proto


LEFT = {
    "reflected": lambda: change(4, mode="reflect")(network()),
    "padded by ones": lambda: padded_by_one(network()),
    "padded around the image": lambda: network(pads=[0, 8, 1, 1, 0, 8, 1, 1]),
    "channels cut": lambda: network(pads=[0, -1, 0, 0, 0, 17, 0, 0]),
    "samples added": lambda: network(pads=[1, 8, 0, 0, 0, 8, 0, 0]),
    "from the second pixel": lambda: network(starts=[1, 1]),
    "a part of the image": lambda: network(ends=[6, 6]),
    "backwards": lambda: network(steps=[-1, -1], starts=[0, 0]),
    "channels skipped": lambda: network(axes=[1, 3]),
    "read by another": lambda: read_twice(network()),
    "given out": lambda: given_out(network()),
    "computed padding": lambda: fed_pads(network()),
    "of another domain": lambda: change(4, domain="local")(network()),
    "of an old opset": lambda: network(opset=10),
    "of an old file": lambda: network(ir=3),
    "of two types": lambda: with_a_half(network()),
    "of another type": lambda: of_another_type(network()),
}


@pytest.mark.parametrize("key", LEFT)
def test_what_is_no_shortcut_is_left(key):
    assert shortcuts.find(LEFT[key]()) == ()


def test_a_model_without_the_metadata_is_compared_as_it_is():
    proto = network()
    assert shortcuts.as_in(proto, proto) is proto


# --- in a run

pytestmark = pytest.mark.usefixtures("quiet")


def onnxcp(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


ONE = ("--threads", 1, "--jobs", 1)


def optimized(folder, proto, *more):
    model, output, report = folder / "m.onnx", folder / "out.onnx", folder / "run.json"
    onnx.save(proto, model)
    rest = ("--rank", "wide=16", "--form", "cp3", *ONE, "--report", report)
    ended = onnxcp("optimize", model, "-o", output, *rest, *more)
    assert ended.exit_code == 0, ended.output
    return model, output, json.loads(report.read_text()), ended.stdout


def test_a_run_rewrites_it_and_says_so(tmp_path):
    model, output, report, text = optimized(tmp_path, network())
    assert report["model"]["shortcuts"] == ["pad"]
    assert [site["name"] for site in report["sites"]] == ["first", "wide", "dense"]
    assert "strided slices with padding, as convolutions that compute the same: pad" in " ".join(
        text.split()
    )
    assert shortcuts_before(onnx.load(output)) == ("pad",)
    plan = json.loads(output.with_suffix(".plan.json").read_text())
    assert plan["fits"]["shortcuts"] == ["pad"]
    ended = onnxcp("verify", model, output)
    assert ended.exit_code == 0, ended.output
    added = 32 * 16 * 4 * 4
    of_sites = sum(site["macs_after"] for site in report["sites"])
    assert report["model"]["macs_after"] == of_sites + added
    stored = sum(np.prod(t.dims, dtype=int) for t in onnx.load(output).graph.initializer)
    assert report["model"]["parameters_after"] == stored


def test_where_it_would_be_slower_it_is_left(tmp_path):
    _, output, report, _ = optimized(tmp_path, network(width=256))
    assert report["model"]["shortcuts"] == []
    assert "Pad" in [node.op_type for node in onnx.load(output).graph.node]


def test_a_model_that_is_left_unchanged_keeps_it(tmp_path):
    model, output, report = tmp_path / "m.onnx", tmp_path / "out.onnx", tmp_path / "run.json"
    onnx.save(network(), model)
    options = ("--max-error", 1e-9, "--allow-unchanged", "--report", report, *ONE)
    ended = onnxcp("optimize", model, "-o", output, *options)
    assert ended.exit_code == 0, ended.output
    assert output.read_bytes() == model.read_bytes()
    plan = json.loads(output.with_suffix(".plan.json").read_text())
    assert plan["fits"]["shortcuts"] == json.loads(report.read_text())["model"]["shortcuts"] == []


def test_a_plan_replays_it_whatever_is_faster(tmp_path):
    model, output, _, _ = optimized(tmp_path, network())
    plan, again = output.with_suffix(".plan.json"), tmp_path / "again.onnx"
    assert onnxcp("optimize", model, "-o", again, "--plan", plan, *ONE).exit_code == 0
    assert again.read_bytes() == output.read_bytes()
    document = json.loads(plan.read_text())
    document["fits"]["shortcuts"] = []
    plan.write_text(json.dumps(document))
    assert (
        onnxcp("optimize", model, "-o", again, "--plan", plan, "--overwrite", *ONE).exit_code == 0
    )
    assert shortcuts_before(onnx.load(again)) == ()


def test_a_plan_that_names_another_is_refused(tmp_path):
    model, output, _, _ = optimized(tmp_path, network())
    plan = output.with_suffix(".plan.json")
    plan.write_text(plan.read_text().replace('"pad"', '"path"'))
    ended = onnxcp("optimize", model, "-o", tmp_path / "again.onnx", "--plan", plan, *ONE)
    assert (ended.exit_code, "no shortcut 'path'" in ended.stderr) == (2, True)
    assert not (tmp_path / "again.onnx").exists()


def test_a_table_tells_both_times_and_serves_a_run(tmp_path):
    model, table = tmp_path / "m.onnx", tmp_path / "latency.json"
    onnx.save(network(size=16, window=5), model)
    ended = onnxcp("profile", model, "-o", table, "--threads", 1, "--form", "cp3")
    assert ended.exit_code == 0, ended.output
    assert "with strided slices as convolutions that compute the same: pad" in ended.stdout
    document = json.loads(table.read_text())
    assert document["shortcuts"] == ["pad"]
    assert document["original"] > document["total"] > 0
    data, report = tmp_path / "data.npz", tmp_path / "run.json"
    images = np.random.default_rng(0).standard_normal((60, 3, 16, 16)).astype(np.float32)
    np.savez(data, x=images)
    options = (
        "--latency",
        table,
        "--data",
        data,
        "--metric",
        "mae",
        "--max-drop",
        1e6,
        "--report",
        report,
    )
    ended = onnxcp(
        "optimize", model, "-o", tmp_path / "out.onnx", "--form", "cp3", "--jobs", 1, *options
    )
    assert ended.exit_code == 0, ended.output
    assert json.loads(report.read_text())["model"]["shortcuts"] == ["pad"]


def test_another_weight_in_its_place_is_found(tmp_path):
    model, output, _, _ = optimized(tmp_path, network())
    proto = onnx.load(output)
    tensor = next(t for t in proto.graph.initializer if t.name.endswith("/shortcut"))
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[8, 0] = 0.5
    tensor.CopyFrom(named(values, tensor.name))
    onnx.save(proto, output)
    ended = onnxcp("verify", model, output)
    assert ended.exit_code == 1
    assert "pad/shortcut" in ended.stdout


def test_a_second_run_leaves_it(tmp_path):
    model, output, _, _ = optimized(tmp_path, network())
    again, report = tmp_path / "again.onnx", tmp_path / "again.json"
    rest = ("--rank", "first=8", "--form", "cp3", *ONE, "--report", report)
    ended = onnxcp("optimize", output, "-o", again, *rest)
    assert ended.exit_code == 0, ended.output
    assert json.loads(report.read_text())["model"]["shortcuts"] == []
    kept = {s["name"]: s["reason"] for s in json.loads(report.read_text())["sites"]}
    assert kept["pad"] == "a shortcut that onnxcp wrote as a convolution"
    for reference in (output, model):
        ended = onnxcp("verify", reference, again)
        assert ended.exit_code == 0, ended.output


def test_int8_has_it_too(tmp_path):
    images = np.random.default_rng(0).standard_normal((60, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=images)
    options = ("--precision", "int8", "--calibration", tmp_path / "data.npz")
    model, output, report, _ = optimized(tmp_path, network(), *options)
    assert report["model"]["shortcuts"] == ["pad"]
    names = {node.name: node.op_type for node in onnx.load(output).graph.node}
    assert names["pad"] == "Conv"
    ended = onnxcp(
        "verify",
        model,
        output,
        "--data",
        tmp_path / "data.npz",
        "--metric",
        "mae",
        "--max-drop",
        1e6,
    )
    assert ended.exit_code == 0, ended.output


def test_training_leaves_it_as_it_is(tmp_path):
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.standard_normal((200, 3, 8, 8)).astype(np.float32))
    model, output, _, _ = optimized(tmp_path, network())
    trained, recipe = tmp_path / "trained.onnx", tmp_path / "recipe.json"
    recipe.write_text('{"features": 0.5}')
    options = ("--data", tmp_path / "data.npz", "--epochs", 1, "--recipe", recipe, "--threads", 1)
    ended = onnxcp("finetune", model, output, "-o", trained, *options)
    assert ended.exit_code == 0, ended.output
    before, after = (
        {t.name: t.raw_data for t in onnx.load(path).graph.initializer}
        for path in (output, trained)
    )
    assert before["pad/shortcut"] == after["pad/shortcut"]
    assert before != after
    assert onnxcp("verify", model, trained).exit_code == 0
