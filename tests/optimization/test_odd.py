"""Real models from many exporters: every convolution is accounted for, chains do what they
say, and nothing is changed that is not measured faster.

The models are not part of the project: ONNXCP_DATA says where they are. Oracles: ONNX
Runtime, and kernels put together again from the factors in the written file.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from odd_models import MODELS, optimized, path_of, run

from onnxcp.graph.io import data_file
from onnxcp.optimization.pipeline import plan_file

pytestmark = pytest.mark.slow

KEYS = list(MODELS)
SLOWEST = {("candy", "cp4")}  # a minute for 720×720 pixels, and nothing new
FORCED = [(k, f) for k in KEYS for f in ("cp4", "cp3") if (k, f) not in SLOWEST]


def assert_nothing_written(folder: Path) -> None:
    assert [p.name for p in folder.iterdir()] == ["run.json"]


def convolutions(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All of a model, wherever they are."""
    for nodes in (proto.graph.node, *(f.node for f in proto.functions)):
        yield from _convolutions(nodes)


def _convolutions(nodes: Any) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        if "Conv" in node.op_type:
            yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _convolutions(graph.node)


@pytest.mark.parametrize("key", KEYS)
def test_inspect_accounts_for_every_convolution(key: str) -> None:
    odd = MODELS[key]
    code, text = run("inspect", path_of(odd), "--json", *odd.arguments)
    assert code == 0
    layers = [row for row in json.loads(text)["layers"] if "Conv" in row["op"]]
    proto = onnx.load(path_of(odd), load_external_data=False)
    assert len(layers) == len(list(convolutions(proto)))
    assert sum(row["eligible"] for row in layers) == odd.sites
    assert len(layers) == odd.sites + odd.skips
    assert all(row["reason"] for row in layers)
    assert all(row["macs"] for row in layers if row["eligible"])
    assert run("inspect", path_of(odd))[0] == 0


@pytest.mark.parametrize(("key", "form"), FORCED)
def test_a_forced_rewrite_does_what_its_chains_say(key: str, form: str, tmp_path: Path) -> None:
    odd, output = MODELS[key], tmp_path / "out.onnx"
    options = ("--form", form, "--rank", f"*={odd.rank}", "--iterations", "8")
    code, report = optimized(odd, tmp_path, *options)
    if not odd.sites:
        assert code == 1
        assert_nothing_written(tmp_path)
        return
    assert code == 0
    assert report["verification"]["ok"]
    assert report["verification"]["relative_l2"] < 1e-3
    replaced = [row for row in report["sites"] if row["decision"] == form]
    assert len(replaced) == odd.windowed - (odd.one_sided if form == "cp4" else 0)
    onnx.checker.check_model(str(output))
    before, after = onnx.load(path_of(odd)), onnx.load(output)
    assert_the_rest_is_untouched(before, after)
    for row in replaced:
        assert_a_chain_is_its_kernel(before, after, row)


def assert_the_rest_is_untouched(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """Nodes, tensors, inputs and outputs that are in both are the same, in the same order."""
    fields = ("node", "initializer", "input", "output", "value_info")
    for field in fields:
        old = [m.SerializeToString(deterministic=True) for m in getattr(before.graph, field)]
        new = {m.SerializeToString(deterministic=True) for m in getattr(after.graph, field)}
        gone = [m for m, b in zip(getattr(before.graph, field), old, strict=True) if b not in new]
        if field == "node":
            assert {n.op_type for n in gone} <= {"Conv", "Constant", "Identity"}
        elif field == "output":
            assert not gone
        else:
            assert {m.name for m in gone}.isdisjoint(m.name for m in getattr(after.graph, field)), (
                field
            )
    assert after.opset_import == before.opset_import
    assert after.ir_version == before.ir_version


SIZES = (25, 24, 23)


def assert_a_chain_is_its_kernel(
    before: onnx.ModelProto, after: onnx.ModelProto, row: Mapping[str, Any]
) -> None:
    """A chain equals the convolution with the kernel that its factors make, and that kernel
    is as far from the original's as the report says: both up to the rounding of factors and
    products, which the square root of the sensitivity makes larger."""
    stored = tensors(after)
    chain = [n for n in after.graph.node if n.name.startswith(f"{row['name']}/cp/")]
    old = next(n for n in before.graph.node if n.output[0] == chain[-1].output[0])
    weights = [stored[n.input[1]].astype(np.float64) for n in chain]
    dense, kernel = put_together(weights), tensors(before)[old.input[1]]
    assert dense.shape == kernel.shape
    assert {stored[n.input[1]].dtype for n in chain} == {kernel.dtype}
    rounding, kernel = np.finfo(kernel.dtype).eps, kernel.astype(np.float64)
    norm = np.linalg.norm(kernel)
    error, sensitivity = (
        np.linalg.norm(dense - kernel) / norm,
        row["sensitivity_after"] ** 0.5 / norm,
    )
    assert error == pytest.approx(row["error"], abs=rounding * (1 + sensitivity))
    image = np.random.default_rng(0).standard_normal((1, dense.shape[1], *SIZES[: dense.ndim - 2]))
    expected, result = convolved([old], [dense], image), convolved(chain, weights, image)
    difference = np.linalg.norm(result - expected) / np.linalg.norm(expected)
    assert difference < 10 * np.finfo(np.float32).eps * (1 + sensitivity)


def tensors(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Stored values by name, those of Constant nodes included."""
    found = {t.name: t for t in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return {name: onnx.numpy_helper.to_array(t) for name, t in found.items()}


def put_together(weights: list[np.ndarray]) -> np.ndarray:
    """The dense kernel of a chain 1×1, depthwise …, 1×1."""
    first, *middle, last = weights
    window = np.ones(1)
    for side in middle:
        window = window * side[:, 0]
    sides = (last.reshape(len(last), -1), first.reshape(len(first), -1), window)
    dense: np.ndarray = np.einsum("tr,rs,r...->ts...", *sides)
    return dense


def convolved(
    nodes: list[onnx.NodeProto], weights: list[np.ndarray], image: np.ndarray
) -> np.ndarray:
    """What Conv nodes in a row make of an image, without their biases."""
    graph = onnx.GraphProto(name="chain")
    for position, (node, weight) in enumerate(zip(nodes, weights, strict=True)):
        graph.node.add().CopyFrom(node)
        del graph.node[-1].input[:], graph.node[-1].output[:]
        graph.node[-1].input.extend([f"t{position}", f"w{position}"])
        graph.node[-1].output.append(f"t{position + 1}")
        stored = onnx.numpy_helper.from_array(weight.astype(np.float32), f"w{position}")
        graph.initializer.append(stored)
    kind = onnx.TensorProto.FLOAT
    graph.input.append(onnx.helper.make_tensor_value_info("t0", kind, image.shape))
    graph.output.append(onnx.helper.make_tensor_value_info(f"t{len(nodes)}", kind, None))
    opset = [onnx.helper.make_opsetid("", 13)]
    made = onnx.helper.make_model(graph, ir_version=8, opset_imports=opset)
    session = ort.InferenceSession(made.SerializeToString())
    result: np.ndarray = session.run(None, {"t0": image.astype(np.float32)})[0]
    return result


@pytest.mark.parametrize("key", KEYS)
def test_without_force_nothing_changes_that_is_not_faster(key: str, tmp_path: Path) -> None:
    odd = MODELS[key]
    include = [word for pattern in odd.searched for word in ("--include", pattern)]
    code, report = optimized(odd, tmp_path, *(include if odd.sites else []))
    replaced = [row for row in report["sites"] if row["decision"] != "kept"]
    if code == 1:
        assert_nothing_written(tmp_path)
        return
    assert code == 0
    assert replaced
    assert all(row["ms_after"] < row["ms_before"] for row in replaced)
    assert report["latency"]["speedup_ci"][0] > 1
    assert report["accuracy"]["drop"] <= report["accuracy"]["budget"]
    assert report["verification"]["ok"]
    written = {p.name for p in tmp_path.iterdir()} - {data_file(tmp_path / "out.onnx").name}
    assert written == {"out.onnx", plan_file(tmp_path / "out.onnx").name, "run.json"}
