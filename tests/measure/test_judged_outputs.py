"""What is judged where outputs depend on data, hold texts, or are no tensors."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner
from written import model

from onnxcp.cli import app
from onnxcp.errors import UsageError
from onnxcp.graph import io
from onnxcp.graph.data_dependent import dependence
from onnxcp.measure import judged_outputs
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner

pytestmark = pytest.mark.usefixtures("quiet")  # no claim here is about time

CPU = Target.named("cpu", 1)
PROBE = [{"x": np.full((1, 6), value, np.float32)} for value in (1.0, -1.0)]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def found(nodes, interface, tensors=None):
    """What is judged of a model of one input x [1, 6]."""
    path = model(Path("m.onnx"), nodes, tensors or {}, f"float[1,6] x) => ({interface}")
    return judged_outputs.find(io.load(path), CPU, PROBE)


# --- which shapes depend on the data

NONE, SOME = False, True


@pytest.mark.parametrize(
    ("nodes", "depends"),
    [
        ("y = NonZero (x)", SOME),
        ("s = Shape (x) c = ConstantOfShape (s) y = NonZero (c)", NONE),
        ("c = Compress (x, b) y = Abs (c)", NONE),
        ("v, i = TopK (x, k) y = Abs (v)", NONE),
        ("n = NonZero (x) s = Shape (n) y = Expand (one, s)", SOME),
        ("n = NonZero (x) s = Size (n) c = Cast <to=1> (s) y = Mul (x, c)", NONE),
        ("n = NonZero (x) t = Transpose (n) y = Gather (x, t)", SOME),
        ("m = ReduceMax (x) i = Cast <to=7> (m) r = Reshape (i, one) y = Tile (one, r)", SOME),
        ("s = Shape (x) y = Reshape (x, s)", NONE),
        ("y = Slice (x, zero, two, one)", NONE),
        ("m = ArgMax <keepdims=0> (x) y = Slice (x, zero, m, one)", SOME),
    ],
)
def test_a_shape_depends_on_data_where_values_of_data_say_it(nodes, depends):
    graph = onnx.parser.parse_graph(f"g (float[1,6] x) => (float[a] y) {{ {nodes} }}")
    assert ("y" in dependence(graph, {"x"}).shapes) is depends


def test_the_same_name_in_another_domain_is_another_operator():
    graph = onnx.parser.parse_graph("g (float[1,6] x) => (float[a] y) { y = my.NonZero (x) }")
    made = dependence(graph, {"x"})
    assert "y" not in made.shapes
    assert "y" in made.uncertain


# --- where it is judged


def test_plain_outputs_are_judged_themselves():
    made = found("a = Abs (x) y = Neg (a) z = Exp (a)", "float[1,6] y, float[1,6] z")
    assert (made.names, made.inside, made.notes) == (("y", "z"), (), ())


def test_before_what_selects():
    made = found(
        "a = Abs (x) s = Sigmoid (a) g = Greater (s, half) n = NonZero (g)",
        "int64[2,m] n",
        {"half": np.array([0.5])},
    )
    assert (made.names, made.inside) == (("s",), ("s",))
    assert made.varying == ("n",)
    assert made.comparable == ("s",)
    assert "'n' (its shape depends on the data) is judged at: s (before Greater" in made.notes[0]


def test_before_whole_numbers_and_once():
    made = found("s = Softmax (x) c = ArgMax (s)", "float[1,6] s, int64[1,6] c")
    assert (made.names, made.inside) == (("s",), ())
    assert made.comparable == ("s", "c")
    assert "'c' (whole numbers) is judged at: s (before ArgMax" in made.notes[0]


def test_numbers_are_judged_where_there_are_no_floats_before():
    made = found("c = ArgMax (x)", "int64[1,6] c")
    assert made.names == ("c",)


def test_texts_alone_are_refused():
    with pytest.raises(UsageError, match="nothing of the model's outputs can be judged"):
        graph = onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 13]> g (string[1] x) => (string[1] y)'
            "{ y = Identity (x) }"
        )
        Path("t.onnx").write_bytes(graph.SerializeToString())
        judged_outputs.find(io.load(Path("t.onnx")), CPU)


BRANCHES = """a = Abs (x) m = ReduceSum <keepdims=0> (x) c = Greater (m, zero)
y = If (c) <then_branch = g1 () => (float[1,6] t) {{ t = Neg (a) }},
            else_branch = g2 () => (float[1,{size}] e) {{ e = {other} }}>"""


def test_a_branch_that_changes_the_shape_is_seen_in_a_run():
    nodes = BRANCHES.format(size=12, other="Concat <axis=1> (a, a)")
    made = found(nodes, "float[1,k] y", {"zero": np.array(0.0)})
    assert made.names == ("a", "m")  # the condition is computed from m


def test_a_branch_that_keeps_the_shape_is_judged_behind_it():
    nodes = BRANCHES.format(size=6, other="Exp (a)")
    assert found(nodes, "float[1,6] y", {"zero": np.array(0.0)}).names == ("y",)


# --- commands on such models

SHAPE = (1, 3, 12, 12)


def detector(path):
    """Two convolutions, boxes and scores, and a selection among them."""
    rng = np.random.default_rng(0)
    tensors = {
        "w0": 0.2 * rng.standard_normal((16, 3, 3, 3)),
        "w1": 0.1 * rng.standard_normal((16, 16, 3, 3)),
        "wb": 0.2 * rng.standard_normal((4, 16, 1, 1)),
        "ws": 0.2 * rng.standard_normal((2, 16, 1, 1)),
    }
    made = model(
        path,
        """c0 = Conv <pads=[1,1,1,1]> (x, w0) r0 = Relu (c0)
        c1 = Conv <pads=[1,1,1,1]> (r0, w1) r1 = Relu (c1)
        b = Conv (r1, wb) s = Conv (r1, ws)
        br = Reshape (b, sb) boxes = Transpose <perm=[0,2,1]> (br)
        sr = Reshape (s, ss) scores = Sigmoid (sr)
        sel = NonMaxSuppression (boxes, scores, most, iou, least)""",
        {k: v.astype(np.float32) for k, v in tensors.items()}
        | {
            "sb": np.array([1, 4, -1]),
            "ss": np.array([1, 2, -1]),
            "most": np.array([20]),
            "iou": np.array([0.5], np.float32),
            "least": np.array([0.5], np.float32),
        },
        f"float[{','.join(map(str, SHAPE))}] x) => (int64[n,3] sel",
    )
    x = rng.standard_normal((60, *SHAPE[1:])).astype(np.float32)
    np.savez("d.npz", x=x)
    return made


def onnxcp(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def first_layer():
    return json.loads(onnxcp("inspect", "m.onnx", "--json").stdout)["layers"][0]["name"]


FAST = ("--threads", 1, "--jobs", 1, "--iterations", 8)


@pytest.mark.parametrize(
    "more", [(), ("--data", "d.npz"), ("--data", "d.npz", "--precision", "int8")]
)
def test_a_detector_with_its_selection_is_optimized_and_verified(more):
    detector(Path("m.onnx"))
    made = onnxcp(
        "optimize",
        "m.onnx",
        "-o",
        "o.onnx",
        "--rank",
        f"{first_layer()}=8",
        "--form",
        "cp3",
        *FAST,
        *more,
        "--report",
        "run.json",
    )
    assert made.exit_code == 0, made.output
    report = json.loads(Path("run.json").read_text())
    assert [o["name"] for o in report["accuracy"]["outputs"]] == ["boxes", "scores"]
    assert any(
        "is judged at: boxes, scores (before NonMaxSuppression" in w for w in report["warnings"]
    )
    old, new = onnx.load("m.onnx").graph, onnx.load("o.onnx").graph
    assert [o.SerializeToString() for o in old.output] == [
        o.SerializeToString() for o in new.output
    ]
    assert sum(n.op_type == "NonMaxSuppression" for n in new.node) == 1
    checked = onnxcp("verify", "m.onnx", "o.onnx", *more[:2], "--threads", 1)
    assert checked.exit_code == 0, checked.output
    assert "is judged at: boxes, scores" in " ".join(checked.stdout.split())


def test_random_inputs_do_not_break_a_benchmark():
    detector(Path("m.onnx"))
    ended = onnxcp("benchmark", "m.onnx", "--duration", "0.05", "--iterations", 8)
    assert ended.exit_code == 0, ended.output


def test_sequences_and_maps_are_left_out_and_said():
    path = zipmap(Path("z.onnx"))
    made = judged_outputs.find(io.load(path), CPU)
    assert made.names == ("prob",)
    assert made.inside == ("prob",)
    assert made.tensors == ("label",)
    notes = " ".join(made.notes)
    assert "'label' (texts) is judged at: prob (before ArgMax" in notes
    assert "'maps' (a sequence) is judged at: prob (before ai.onnx.ml.ZipMap" in notes
    np.savez("x.npz", x=np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32))
    checked = onnxcp("verify", path, path, "--data", "x.npz", "--metric", "agreement")
    assert checked.exit_code == 0, checked.output
    assert "agreement 1.0000 → 1.0000" in " ".join(checked.stdout.split())


def test_texts_and_maps_are_timed_with_outputs_bound_to_a_device():
    runner = open_runner(zipmap(Path("z.onnx")), CPU)
    runner.bound_on("cpu", {"x": np.zeros((2, 4), np.float32)})()


def zipmap(path):
    """A classifier as scikit-learn's exporter writes it."""
    weight = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    ml, names = "ai.onnx.ml", ["cat", "dog", "cow"]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["prob"], axis=1),
        helper.make_node("ZipMap", ["prob"], ["maps"], domain=ml, classlabels_strings=names),
        helper.make_node("ArgMax", ["prob"], ["best"], axis=1, keepdims=0),
        helper.make_node(
            "LabelEncoder",
            ["best"],
            ["label"],
            domain=ml,
            keys_int64s=[0, 1, 2],
            values_strings=names,
            default_string="?",
        ),
    ]
    maps = onnx.TypeProto()
    kind = maps.sequence_type.elem_type.map_type
    kind.key_type = TensorProto.STRING
    kind.value_type.tensor_type.elem_type = TensorProto.FLOAT
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.STRING, ["n"]),
        onnx.ValueInfoProto(name="maps", type=maps),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(nodes, "g", [x], outputs, [onnx.numpy_helper.from_array(weight, "w")])
    sets = [helper.make_opsetid("", 13), helper.make_opsetid(ml, 2)]
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=8), path)
    return path


@pytest.mark.parametrize("command", ["optimize", "benchmark"])
@pytest.mark.parametrize(
    ("node", "advice"),
    [
        ("y = my.Plugin (a)", "cut the model before them with onnx.utils.extract_model"),
        ("i = Cast <to=5> (a) j = Sin (i) y = Cast <to=1> (j)", ""),
    ],
)
def test_an_operator_without_a_kernel_is_refused_with_what_to_do(command, node, advice):
    text = '<ir_version: 8, opset_import: ["" : 13, "my" : 1]> g (float[1,6] x) => (float[1,6] y)'
    made = onnx.parser.parse_model(f"{text} {{ a = Abs (x) {node} }}")
    Path("m.onnx").write_bytes(made.SerializeToString())
    ended = onnxcp(command, "m.onnx")
    assert ended.exit_code == 2, ended.output
    assert "ONNX Runtime reports: " in ended.output
    assert advice in ended.output
    assert onnxcp("inspect", "m.onnx").exit_code == 0


def test_training_ends_where_judging_does():
    torch = pytest.importorskip("torch")
    del torch
    detector(Path("m.onnx"))
    ranks = ("--rank", f"{first_layer()}=8", "--form", "cp3")
    made = onnxcp("optimize", "m.onnx", "-o", "o.onnx", "--data", "d.npz", *ranks, *FAST)
    assert made.exit_code == 0, made.output
    ended = onnxcp(
        "finetune",
        "m.onnx",
        "o.onnx",
        "-o",
        "t.onnx",
        "--data",
        "d.npz",
        "--epochs",
        3,
        "--json",
        "--batch-size",
        16,
        "--threads",
        1,
    )
    assert ended.exit_code == 0, ended.output
    report = json.loads(ended.stdout)
    before, after = (report[key]["after"] for key in ("accuracy_before", "accuracy"))
    assert after < before  # relative-error of boxes and scores
    assert sum(n.op_type == "NonMaxSuppression" for n in onnx.load("t.onnx").graph.node) == 1
    checked = onnxcp("verify", "m.onnx", "t.onnx", "--data", "d.npz", "--threads", 1)
    assert checked.exit_code == 0, checked.output


# --- a user's metric


def test_a_function_of_the_user_sees_what_the_selection_gives(monkeypatch):
    detector(Path("m.onnx"))
    Path("boxes_kept.py").write_text(
        "def count(outputs, labels):\n"
        "    assert labels is None\n"
        "    assert set(outputs) == {'boxes', 'scores', 'sel'}, set(outputs)\n"
        "    assert all(rows.shape[1] == 3 for rows in outputs['sel'])\n"
        "    return sum(len(rows) for rows in outputs['sel']) / len(outputs['sel'])\n"
    )
    monkeypatch.syspath_prepend(".")
    checked = onnxcp(
        "verify",
        "m.onnx",
        "m.onnx",
        "--data",
        "d.npz[:9]",
        "--metric",
        "boxes_kept:count:lower",
        "--max-drop",
        "0",
        "--json",
    )
    assert checked.exit_code == 0, checked.output
    found = json.loads(checked.stdout)["accuracy"]
    assert found["metric"] == "boxes_kept:count"
    assert found["before"] == found["after"] > 0
    assert found["drop_ci"] == [0, 0]


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("nowhere:f", "No module named 'nowhere'"),
        ("json:nothing", "has no attribute 'nothing'"),
        ("json:decoder", "cannot be called"),
        ("json:dumps:best", "write it as module:function or module:function:lower"),
    ],
)
def test_a_metric_that_is_no_function_is_refused(metric, says):
    detector(Path("m.onnx"))
    ended = onnxcp("verify", "m.onnx", "m.onnx", "--data", "d.npz", "--metric", metric)
    assert ended.exit_code == 2
    assert says in ended.output
