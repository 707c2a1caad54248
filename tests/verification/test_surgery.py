"""Chains in place of every kind of site compute what the node did: convolutions of one, two
and three dimensions, with groups, pointwise, and matrix products.

Kernels are made of the very factors that their chains store. Oracle: ONNX Runtime.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from node_kinds import BIAS, CONVOLUTIONS, PRODUCTS, TWO, WEIGHT, matrices

from onnxcp.chain import Chain, Geometry, Stage, pointwise, with_bias
from onnxcp.forms import FORMS
from onnxcp.forms.grouped import chain, part_of, reconstructed
from onnxcp.graph import sites
from onnxcp.graph.shapes import infer
from onnxcp.graph.sites import Site, Skip
from onnxcp.graph.splice import rewrite
from onnxcp.latency.candidates import dense_stage

RANK = 3
Tensors = Mapping[str, np.ndarray]
NAMES = {np.float16: "float16", np.float32: "float", np.float64: "double"}


def model(
    nodes: str,
    tensors: Tensors,
    shape: tuple[int, ...],
    *,
    opset: int = 13,
    ir: int = 8,
    dtype: type = np.float32,
) -> onnx.ModelProto:
    """A model from x, of a shape, to y of as many dimensions."""
    kind, dims, any_size = NAMES[dtype], ",".join(map(str, shape)), ",".join("abcde"[: len(shape)])
    made = onnx.parser.parse_model(
        f'<ir_version: {ir}, opset_import: ["" : {opset}, "com.microsoft" : 1]> '
        f"g ({kind}[{dims}] x) => ({kind}[{any_size}] y) {{ {nodes} }}"
    )
    made.graph.initializer.extend(
        onnx.numpy_helper.from_array(v.astype(dtype), n) for n, v in tensors.items()
    )
    if ir < 4:
        made.graph.input.extend(
            onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims)
            for t in made.graph.initializer
        )
    return made


def find(made: onnx.ModelProto) -> tuple[tuple[Site, ...], tuple[Skip, ...]]:
    shape = tuple(d.dim_value for d in made.graph.input[0].type.tensor_type.shape.dim)
    return sites.find(made, infer(made, {"x": shape}))


def run(made: onnx.ModelProto) -> list[np.ndarray]:
    kind = made.graph.input[0].type.tensor_type
    shape = [d.dim_value for d in kind.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    x = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    results: list[np.ndarray] = ort.InferenceSession(made.SerializeToString(), options).run(
        None, {"x": x}
    )
    return results


def assert_equal(
    before: onnx.ModelProto, after: onnx.ModelProto, tolerance: float = 1e-5
) -> list[np.ndarray]:
    onnx.checker.check_model(after, full_check=True)
    old, new = run(before), run(after)
    for a, b in zip(old, new, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance * np.abs(a).max())
    return old


def chained(made: onnx.ModelProto, chains: Mapping[str, Chain]) -> onnx.ModelProto:
    return rewrite(made, chains, find(made)[0], metadata={}).proto


def ops(made: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in made.graph.node]


def stored(made: onnx.ModelProto) -> set[str]:
    return {t.name for t in made.graph.initializer}


# --- convolutions

TAKEN = [
    (kind, form)
    for kind, (_, shape, _, _) in CONVOLUTIONS.items()
    for form, row in FORMS.items()
    if row.refuses(shape) is None
]
BIASES = {"none": "", "stored": ", b", "computed": ", c"}


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize(("kind", "form"), TAKEN)
def test_a_chain_computes_what_its_convolution_did(kind: str, form: str, bias: str) -> None:
    attributes, shape, group, image = CONVOLUTIONS[kind]
    rng, part = np.random.default_rng(0), part_of(shape, group)
    factors = [FORMS[form].draw(part, RANK, rng) for _ in range(group)]
    tensors = {"w": reconstructed(FORMS[form], factors, part), "b": rng.standard_normal(shape[0])}
    negated = 'n = Neg (b)  c = Einsum <equation="a->a"> (n)'  # which is not folded
    nodes = f"{negated}  [a] y = Conv <{attributes}> (x, w{BIASES[bias]})"
    made = model(nodes, tensors, (2, shape[1] * group, *image))
    (site,), skips = find(made)
    assert not skips
    new = chain(FORMS[form], factors, site.part, site.geometry)
    after = chained(made, {"a": new})
    assert "w" not in stored(after)
    assert_equal(made, after)
    own = with_bias(new, tensors["b"] if bias == "stored" else -tensors["b"])
    if bias != "none":
        assert_equal(made, chained(made, {"a": own}))


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_dense_stage_computes_what_its_convolution_did(kind: str) -> None:
    attributes, shape, group, image = CONVOLUTIONS[kind]
    tensors = {"w": np.random.default_rng(0).standard_normal(shape)}
    nodes = f"[a] y = Conv <{attributes}> (x, w)"
    made = model(nodes, tensors, (1, shape[1] * group, *image))
    (site,), _ = find(made)
    assert_equal(made, chained(made, {"a": (dense_stage(site),)}))


@pytest.mark.parametrize("image", [(9,), (5, 6), (3, 4, 5)])
def test_a_pointwise_convolution_becomes_two(image: tuple[int, ...]) -> None:
    count, (left, right) = len(image), matrices(6, 4)
    made = model(
        "[a] y = Conv (x, w, b)",
        {"w": (left @ right).reshape(6, 4, *(1,) * count), "b": BIAS},
        (2, 4, *image),
    )
    new = (pointwise("inputs", right, count), pointwise("outputs", left, count))
    after = chained(made, {"a": new})
    assert stored(after) == {"a/cp/inputs.weight", "a/cp/outputs.weight", "b"}
    assert_equal(made, after)


# --- products


def product(kind: str, **options: int | type) -> onnx.ModelProto:
    node, weight, third, shape, _ = PRODUCTS[kind]
    tensors = {"w": weight} | ({} if third is None else {"b": third})
    return model(f"[a] y = {node}", tensors, shape, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", PRODUCTS)
def test_a_chain_computes_what_its_product_did(kind: str) -> None:
    made = product(kind)
    after = chained(made, {"a": TWO})
    assert ops(after) == PRODUCTS[kind][-1]
    assert [n.name for n in after.graph.node] == ["a/cp/inputs", "a/cp/outputs"]
    assert stored(after) == {"a/cp/inputs.weight", "a/cp/outputs.weight"} | (stored(made) - {"w"})
    assert_equal(made, after)


@pytest.mark.parametrize("kind", PRODUCTS)
def test_a_dense_stage_computes_what_its_product_did(kind: str) -> None:
    made = product(kind)
    (site,), _ = find(made)
    after = chained(made, {"a": (dense_stage(site),)})
    assert ops(after) == [site.layer.op] + ["Add"] * (site.layer.op == "MatMul" and "b" in kind)
    assert_equal(made, after)
    plain = chained(made, {"a": (replace(dense_stage(site), bias=None),)})
    assert ops(plain) == [site.layer.op]
    assert_equal(made, plain)


@pytest.mark.parametrize("kind", PRODUCTS)
def test_a_chain_with_a_bias_of_its_own_replaces_the_products(kind: str) -> None:
    made = product(kind)
    after = chained(made, {"a": with_bias(TWO, 7 + BIAS)})
    assert "b" not in stored(after)
    assert ops(after) == (["MatMul", "MatMul", "Add"] if "Mat" in kind else ["MatMul", "Gemm"])
    onnx.checker.check_model(after, full_check=True)
    (plain,) = run(chained(model("[a] y = MatMul (x, w)", {"w": WEIGHT.T}, PRODUCTS[kind][3]), {}))
    np.testing.assert_allclose(run(after)[0], plain + 7 + BIAS, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("opset", range(7, onnx.defs.onnx_opset_version() + 1))
@pytest.mark.parametrize("kind", ["MatMul", "Gemm bias", "Gemm transB"])
def test_products_of_every_opset_are_replaced(kind: str, opset: int) -> None:
    newest = opset > 22
    made = product(kind, opset=opset, ir=3 if opset < 9 else onnx.IR_VERSION if newest else 8)
    after = chained(made, {"a": TWO})
    onnx.checker.check_model(after, full_check=True)
    if not newest:
        assert_equal(made, after)


@pytest.mark.parametrize("kind", ["MatMul", "Gemm bias", "Gemm transB"])
def test_up_to_ir_3_new_matrices_are_graph_inputs_too(kind: str) -> None:
    made = product(kind, ir=3, opset=8)
    after = chained(made, {"a": TWO})
    assert {i.name for i in after.graph.input} == {"x"} | stored(after)
    assert_equal(made, after)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 1e-2), (np.float64, 1e-12)])
@pytest.mark.parametrize("kind", ["MatMul", "Gemm bias"])
def test_products_keep_their_dtype(kind: str, dtype: type, tolerance: float) -> None:
    made = product(kind, dtype=dtype)
    after = chained(made, {"a": TWO})
    kinds = {t.data_type for t in after.graph.initializer}
    assert kinds == {onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))}
    assert_equal(made, after, tolerance)


@pytest.mark.parametrize("copies", ["", "v = Identity (w)"])
@pytest.mark.parametrize("kind", ["MatMul (x, {})", "Gemm <transB=1> (x, {}, b)"])
def test_a_matrix_goes_with_the_nodes_that_gave_it(kind: str, copies: str) -> None:
    nodes = f"{copies} [a] y = {kind.format('v' if copies else 'w')}"
    made = model(nodes, {"b": BIAS}, (3, 4))
    weight = (WEIGHT if "transB" in kind else WEIGHT.T).astype(np.float32)
    tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(weight))
    made.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=tensor))
    after = chained(made, {"a": TWO})
    assert set(ops(after)) <= {"MatMul", "Gemm"}
    assert_equal(made, after)


def test_a_matrix_that_two_products_share_is_still_shared() -> None:
    square = matrices(4, 4)
    two = (pointwise("inputs", square[1], 0), pointwise("outputs", square[0], 0))
    made = model(
        "[a] h = MatMul (x, w)  [b] y = MatMul (h, w)", {"w": (square[0] @ square[1]).T}, (3, 4)
    )
    after = chained(made, {"a": two, "b": two})
    assert len(stored(after)) == 2
    assert_equal(made, after)


def test_a_matrix_read_both_ways_gives_two_chains() -> None:
    left, right = matrices(4, 4)
    turned = (pointwise("inputs", left.T, 0), pointwise("outputs", right.T, 0))
    plain = (pointwise("inputs", right, 0), pointwise("outputs", left, 0))
    made = model(
        "[a] h = MatMul (x, w)  [b] y = Gemm <transB=1> (h, w)", {"w": left @ right}, (3, 4)
    )
    assert_equal(made, chained(made, {"a": turned, "b": plain}))
    one = chained(made, {"a": turned})
    assert "w" in stored(one)
    assert_equal(made, one)


@pytest.mark.parametrize("reader", ["z = Neg (w)", "z = Transpose (w)", "z = Identity (w)"])
def test_a_matrix_with_another_reader_stays(reader: str) -> None:
    made = model(f"[a] y = MatMul (x, w)  {reader}", {"w": WEIGHT.T}, (3, 4))
    made.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, [None, None]))
    after = chained(made, {"a": TWO})
    assert "w" in stored(after)
    assert_equal(made, after)


def test_products_that_are_left_alone_come_out_byte_for_byte() -> None:
    made = model(
        """
        [scaled] p = Gemm <alpha=0.5> (x, v, b)
        [wider] r = Unsqueeze (p, axes)
        [depthwise] s = Conv <group=6> (r, d)
        [narrower] q = Squeeze (s, axes)
        [a] t = MatMul (x, w)
        [k] k = Erf (m)
        [computed] u = MatMul (t, k)
        [sum] y = Add (u, q)
        """,
        {"v": WEIGHT.T, "b": BIAS, "w": WEIGHT.T, "m": np.eye(6), "d": np.ones((6, 1, 1))},
        (3, 4),
    )
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2]), "axes"))
    found, skips = find(made)
    assert [s.name for s in found] == ["a"]
    assert {s.layer.name: s.code for s in skips} == {"scaled": "scaled", "depthwise": "depthwise"}
    after = chained(made, {"a": TWO})
    kept = {n.name: n.SerializeToString() for n in after.graph.node}
    for node in made.graph.node:
        assert node.name == "a" or kept[node.name] == node.SerializeToString()
    assert_equal(made, after)


def test_the_chains_of_an_earlier_run_are_no_sites() -> None:
    made = product("Gemm bias")
    after = chained(made, {"a": with_bias(TWO, BIAS)})
    found, skips = find(after)
    assert not found
    assert [s.code for s in skips] == ["chain", "chain"]


def test_a_stage_needs_no_window_to_be_counted() -> None:
    assert Stage("dense", WEIGHT, Geometry(dimensions=0)).geometry.output((), (5, 7)) == (5, 7)
