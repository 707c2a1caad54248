"""Which operator a node is: a name alone says nothing."""

import ast
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import onnxcp
from onnxcp.cli import app
from onnxcp.graph.constants import Constants
from onnxcp.graph.operators import operator
from onnxcp.graph.shapes import infer
from onnxcp.graph.sites import find

SOURCES = sorted(Path(onnxcp.__file__).parent.rglob("*.py"))
ALLOWED = ("operators.py", "io.py")  # the latter reads all texts of a model


def value(name: str, shape: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def weight(name: str, *shape: int) -> onnx.TensorProto:
    values = np.random.default_rng(0).standard_normal(shape) / 12
    return numpy_helper.from_array(values.astype(np.float32), name)


def model(nodes, functions=(), shape=(1, 16, 6, 6), stored=(16, 16, 3, 3)) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "g", [value("x", list(shape))], [value("y", list(shape))], [weight("w", *stored)]
    )
    opsets = [helper.make_opsetid(d, v) for d, v in (("", 17), ("my", 1), ("com.microsoft", 1))]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8)


def doubling(name: str, inputs=("a",)) -> onnx.FunctionProto:
    """A local function of a standard name that computes something else."""
    nodes = [helper.make_node("Add", [inputs[0], inputs[0]], ["b"])]
    return helper.make_function(
        "my", name, list(inputs), ["b"], nodes, [helper.make_opsetid("", 17)]
    )


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_the_standards_domain_has_two_names(domain):
    assert operator(onnx.NodeProto(op_type="Conv", domain=domain)) == "Conv"


@pytest.mark.parametrize("domain", ["my", "com.microsoft", "ai.onnx.ml", "AI.ONNX"])
def test_a_name_in_another_domain_is_not_the_standards(domain):
    assert operator(onnx.NodeProto(op_type="Conv", domain=domain)) == f"{domain}.Conv"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(SOURCES[0].parent)))
def test_no_module_reads_an_operators_name_without_its_domain(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    reads = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr == "op_type"
        and isinstance(node.ctx, ast.Load)
    ]
    assert path.name in ALLOWED or not reads or _only_profiles(path), reads


def _only_profiles(path: Path) -> bool:
    """The runtime's own account of where nodes ran holds no ONNX nodes."""
    return path.name == "sessions.py"


@pytest.mark.parametrize("name", ["Identity", "Constant", "Cast", "Transpose", "Reshape"])
def test_a_weight_behind_another_domains_node_is_computed(name):
    proto = model(
        [
            helper.make_node(name, ["w"], ["k"], domain="my"),
            helper.make_node("Conv", ["x", "k"], ["y"], name="conv", pads=[1] * 4),
        ],
        [doubling(name)],
    )
    sites, skips = find(proto, infer(proto, {"x": (1, 16, 6, 6)}))
    assert not sites
    assert [(s.code, s.detail) for s in skips] == [("computed", f"by my.{name}")]
    assert Constants(proto.graph).find("k") is None


@pytest.mark.parametrize("name", ["Conv", "Gemm", "MatMul"])
def test_another_domains_layer_is_no_site(name):
    proto = model(
        [helper.make_node(name, ["x", "w"], ["y"], domain="my")], [doubling(name, ("a", "k"))]
    )
    assert find(proto, infer(proto, {}))[0] == ()


@pytest.mark.parametrize("name", ["Conv", "Gemm", "MatMul", "ConvInteger", "QLinearConv"])
def test_a_layer_of_one_input_in_another_domain_is_listed_without_a_fault(tmp_path, name):
    onnx.save(
        model([helper.make_node(name, ["x"], ["y"], domain="my")], [doubling(name)]),
        tmp_path / "m.onnx",
    )
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "m.onnx")])
    assert result.exit_code == 0, result.output


def test_the_runtimes_own_convolution_is_left_alone_by_its_full_name(tmp_path):
    proto = model(
        [helper.make_node("FusedConv", ["x", "w"], ["y"], domain="com.microsoft", pads=[1] * 4)]
    )
    onnx.save(proto, tmp_path / "m.onnx")
    ort.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    skips = find(proto, infer(proto, {}))[1]
    assert [(s.code, s.detail) for s in skips] == [("operator", "com.microsoft.FusedConv")]
