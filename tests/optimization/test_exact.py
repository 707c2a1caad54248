"""`optimize --exact`: what is written computes the same, is faster, and is known for what it is."""

import json

import numpy as np
import onnx
import pytest
from digits import onnxcp
from onnx import TensorProto, helper, numpy_helper

from onnxcp.graph.pass_table import PASSES
from onnxcp.graph.passes.edit import Pass

pytestmark = pytest.mark.usefixtures("quiet")

IMAGE = (1, 8, 12, 12)
SWISH = ("Add", "Clip", "Mul", "Div")


def network(path, *, listed=False, activation=SWISH, channels=8):
    """Two convolutions with a written-out HardSwish between them."""
    rng = np.random.default_rng(0)
    stored = {
        "w": rng.standard_normal((channels, 8, 3, 3)) / 8,
        "v": rng.standard_normal((8, channels, 3, 3)) / 8,
        "three": 3.0,
        "zero": 0.0,
        "six": 6.0,
    }
    tensors = [numpy_helper.from_array(np.float32(values), name) for name, values in stored.items()]
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], "first", **pads)]
    if activation == SWISH:
        nodes += [
            helper.make_node("Add", ["c", "three"], ["a"], "add"),
            helper.make_node("Clip", ["a", "zero", "six"], ["l"], "clip"),
            helper.make_node("Mul", ["c", "l"], ["m"], "mul"),
            helper.make_node("Div", ["m", "six"], ["h"], "div"),
        ]
    else:
        nodes.append(helper.make_node("Relu", ["c"], ["h"], "relu"))
    nodes.append(helper.make_node("Conv", ["h", "v"], ["y"], "second", **pads))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE)]
    if listed:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, IMAGE)]
    graph = helper.make_graph(nodes, "network", inputs, outputs, tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(proto)
    onnx.save(proto, path)
    return path


def exact(model, output, *more):
    return onnxcp("optimize", model, "-o", output, "--exact", "--threads", 1, "--no-cache", *more)


def without(*names):
    return [word for name in names for word in ("--no-pass", name)]


def operators(path):
    return [node.op_type for node in onnx.load(path).graph.node]


def test_the_model_is_written_and_proven_from_the_files(tmp_path):
    model, out, run = network(tmp_path / "m.onnx"), tmp_path / "o.onnx", tmp_path / "run.json"
    ended = exact(model, out, "--report", run)
    assert ended.exit_code == 0, ended.output
    assert "computing the same: hard-activations" in ended.output
    assert operators(out) == ["Conv", "HardSigmoid", "Mul", "Conv"]
    checked = onnxcp("verify", model, out, "--require-surgery", "--rtol", 1e-5, "--atol", 1e-5)
    assert checked.exit_code == 0, checked.output
    assert "surgery: exact passes hard-activations, exact to rounding" in checked.output
    document = json.loads(run.read_text())
    (record,) = document["passes"]
    assert (record["name"], record["places"], record["kept"]) == ("hard-activations", 1, True)
    assert document["verification"]["relative_l2"] <= document["verification"]["tolerance"] == 1e-5
    assert document["accuracy"] is None


def test_a_plan_replays_to_the_same_bytes(tmp_path):
    model, first, again = network(tmp_path / "m.onnx"), tmp_path / "a.onnx", tmp_path / "b.onnx"
    assert exact(model, first).exit_code == 0
    assert exact(model, again, "--plan", tmp_path / "a.plan.json").exit_code == 0
    assert first.read_bytes() == again.read_bytes()


def test_without_a_pass_that_applies_nothing_is_written(tmp_path):
    model, out = network(tmp_path / "m.onnx", activation="Relu"), tmp_path / "o.onnx"
    ended = exact(model, out)
    assert ended.exit_code == 1
    assert "nothing written, no exact pass applies to the model" in ended.output
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    allowed = exact(model, out, "--allow-unchanged")
    assert allowed.exit_code == 0, allowed.output
    assert out.read_bytes() == model.read_bytes()


def test_a_pass_that_does_not_pay_is_not_kept(tmp_path):
    """Weights that are no inputs make no node faster on a machine that knows nodes alone."""
    model, out = network(tmp_path / "m.onnx", listed=True, activation="Relu"), tmp_path / "o.onnx"
    ended = exact(model, out)
    assert ended.exit_code == 1
    assert "no exact pass makes the model clearly faster (tried: unlist-weights)" in " ".join(
        ended.output.split()
    )
    assert not out.exists()


def test_a_pass_may_be_left_out(tmp_path):
    model, out = network(tmp_path / "m.onnx"), tmp_path / "o.onnx"
    ended = exact(model, out, *without("hard-activations"))
    assert ended.exit_code == 0, ended.output
    assert operators(out) == ["Conv", "Add", "Clip", "Mul", "Conv"]  # the quotient is folded
    ended = exact(model, tmp_path / "p.onnx", *without(*PASSES))
    assert ended.exit_code == 1
    assert "no exact pass applies" in ended.output


def test_a_pass_that_changes_what_is_computed_is_found_out(tmp_path, monkeypatch):
    def wrong(edit):
        node = next(n for n in edit.nodes if n.op_type == "Clip")
        made = helper.make_node("Relu", [node.input[0]], [node.output[0]], node.name)
        edit.replace([node], [made])
        return 1

    monkeypatch.setitem(PASSES, "hard-activations", Pass("a bound that is gone", wrong))
    model, out, run = network(tmp_path / "m.onnx"), tmp_path / "o.onnx", tmp_path / "run.json"
    samples = tmp_path / "x.npz"
    np.savez(samples, x=np.full((4, *IMAGE[1:]), 9.0, np.float32))
    others = without(*[name for name in PASSES if name != "hard-activations"])
    ended = exact(model, out, "--report", run, "--data", samples, *others)
    assert ended.exit_code == 1, ended.output
    (record,) = json.loads(run.read_text())["passes"]
    assert record["reason"].startswith("not proven: tensor 'l' is not what it was")
    assert not out.exists()


def test_an_operator_without_a_kernel_for_the_type_is_left_out(tmp_path):
    """ONNX Runtime has no HardSigmoid of double on a CPU."""
    nodes = [
        helper.make_node("Add", ["x", "three"], ["a"]),
        helper.make_node("Clip", ["a", "zero", "six"], ["l"]),
        helper.make_node("Div", ["l", "six"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.DOUBLE, [4]) for n in "xy"]
    stored = [
        numpy_helper.from_array(np.float64(number), name)
        for name, number in (("three", 3), ("zero", 0), ("six", 6))
    ]
    graph = helper.make_graph(nodes, "double", values[:1], values[1:], stored)
    opset = helper.make_opsetid("", 13)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "d.onnx")
    run = tmp_path / "run.json"
    ended = exact(tmp_path / "d.onnx", tmp_path / "o.onnx", "--report", run)
    assert ended.exit_code == 1, ended.output
    (record,) = json.loads(run.read_text())["passes"]
    assert record["reason"].startswith("does not run: ")
    assert not record["kept"]


def test_a_second_run_finds_nothing_more(tmp_path):
    model, out, again = network(tmp_path / "m.onnx"), tmp_path / "o.onnx", tmp_path / "b.onnx"
    assert exact(model, out).exit_code == 0
    ended = exact(out, again)
    assert ended.exit_code == 1
    assert "no exact pass applies" in ended.output


@pytest.fixture(scope="module")
def written(tmp_path_factory, quiet):
    folder = tmp_path_factory.mktemp("written")
    model, out = network(folder / "m.onnx"), folder / "o.onnx"
    assert exact(model, out).exit_code == 0
    return model, out


def forged(written, tmp_path, change):
    model, out = written
    proto = onnx.load(out)
    change(proto)
    onnx.save(proto, tmp_path / "forged.onnx")
    return onnxcp("verify", model, tmp_path / "forged.onnx", "--require-surgery")


def renamed(names):
    def change(proto):
        for entry in proto.metadata_props:
            if entry.key == "onnxcp.passes":
                entry.value = json.dumps(names)

    return change


def steeper(proto):
    next(n for n in proto.graph.node if n.op_type == "HardSigmoid").attribute[0].f = 0.2


def heavier(proto):
    proto.graph.initializer[0].raw_data = bytes(len(proto.graph.initializer[0].raw_data))


FORGERIES = {
    "another slope": (steeper, "node 'div/hard_sigmoid'"),
    "another weight": (heavier, "'w'"),
    "no pass named": (renamed([]), "neither the reference's nor part of a chain"),
    "an unknown pass": (renamed(["hard-activations", "magic"]), "magic: by the metadata"),
    "another pass named": (renamed(["fold-behind"]), "hard_sigmoid"),
}


@pytest.mark.parametrize(("change", "said"), FORGERIES.values(), ids=FORGERIES)
def test_what_was_not_made_by_a_pass_does_not_verify(written, tmp_path, change, said):
    ended = forged(written, tmp_path, change)
    assert ended.exit_code == 1, ended.output
    assert said in " ".join(ended.output.split())


def test_chains_go_into_what_exact_passes_wrote_and_verify_against_the_original(written, tmp_path):
    model, out = written
    chained = tmp_path / "chained.onnx"
    asked = ("--rank", "first=8", "--form", "svd", "--no-cache", "--threads", 1)
    ended = onnxcp("optimize", out, "-o", chained, *asked)
    assert ended.exit_code == 0, ended.output
    assert onnxcp("verify", out, chained, "--require-surgery").exit_code == 0
    ended = onnxcp("verify", model, chained, "--require-surgery")
    assert ended.exit_code == 0, ended.output


def test_external_data_stay_outside(tmp_path):
    model, out = network(tmp_path / "m.onnx", channels=64), tmp_path / "o.onnx"
    proto = onnx.load(model)
    onnx.save(proto, model, save_as_external_data=True, location="m.data", size_threshold=1024)
    assert exact(model, out).exit_code == 0
    assert (tmp_path / "o.onnx.data").exists()
    assert onnxcp("verify", model, out, "--require-surgery").exit_code == 0


REFUSED = {
    "ranks": (("--rank", "first=8"), "--exact and --rank exclude each other"),
    "a budget": (("--max-error", 0.1), "--exact and --max-error exclude each other"),
    "a precision": (("--precision", "int8"), "--exact and --precision exclude each other"),
    "an unknown pass": (("--no-pass", "magic"), "--no-pass magic"),
    "a time": (("--time-budget", "1m"), "--exact and --time-budget exclude each other"),
    "layers": (("--include", "first"), "--exact and --include exclude each other"),
    "a plan without passes": (("--plan", "none.plan.json"), "names no exact pass"),
    "a plan of another model": (("--plan", "other.plan.json"), "another model"),
    "a plan of no precision": (("--plan", "precision.plan.json"), "is no precision"),
    "a plan of an unknown pass": (("--plan", "magic.plan.json"), "no exact pass is called 'magic'"),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_beside_it_is_refused(written, tmp_path, monkeypatch, options, said):
    model, out = written
    monkeypatch.chdir(tmp_path)
    document = json.loads(out.with_suffix(".plan.json").read_text())
    (tmp_path / "other.plan.json").write_text(json.dumps({**document, "source_sha256": "f" * 64}))
    none = {**document["fits"], "passes": []}
    (tmp_path / "none.plan.json").write_text(json.dumps({**document, "fits": none}))
    fits = {**document["fits"], "precision": "in" + chr(0) + "t8"}
    (tmp_path / "precision.plan.json").write_text(json.dumps({**document, "fits": fits}))
    document["fits"]["passes"] = ["magic"]
    (tmp_path / "magic.plan.json").write_text(json.dumps(document))
    ended = exact(model, tmp_path / "x.onnx", *options)
    assert ended.exit_code == 2, ended.output
    assert said in " ".join(ended.output.split())
    assert not (tmp_path / "x.onnx").exists()


def test_an_option_of_passes_without_them_is_refused(written, tmp_path):
    ended = onnxcp("optimize", written[0], "-o", tmp_path / "x.onnx", "--no-pass", "depthwise")
    assert ended.exit_code == 2
    assert "--no-pass depthwise: goes with --exact" in " ".join(ended.output.split())


def test_inspect_says_beforehand_which_passes_apply(tmp_path):
    ended = onnxcp("inspect", network(tmp_path / "m.onnx"))
    said = " ".join(ended.output.split())
    assert ended.exit_code == 0
    assert "exact passes that apply: hard-activations (1 place); optimize with --exact" in said
    plain = onnxcp("inspect", network(tmp_path / "p.onnx", activation="Relu"))
    assert "exact passes" not in plain.output


def test_a_plan_of_passes_is_not_replayed_as_one_of_chains(written, tmp_path):
    model, out = written
    plan = out.with_suffix(".plan.json")
    ended = onnxcp("optimize", model, "-o", tmp_path / "x.onnx", "--plan", plan)
    assert ended.exit_code == 2, ended.output
    assert "replay it with --exact" in " ".join(ended.output.split())
