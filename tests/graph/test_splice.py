"""Chains go in, kernels go out, and nothing else changes.

Kernels are sums of a few separable terms, so that their chains are exact and the rewritten
model must compute what the original does. Oracles: `onnx.reference` and ONNX Runtime, and
for what a graph holds together by onnx-graphsurgeon.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
from asked import settings
from onnx.reference import ReferenceEvaluator

from onnxcp import __version__
from onnxcp.chain import Chain, Stage
from onnxcp.fitting.fits import Fits
from onnxcp.forms import FORMS
from onnxcp.forms.grouped import chain
from onnxcp.graph import io, sites
from onnxcp.graph.shapes import infer
from onnxcp.graph.sites import Site, Skip
from onnxcp.graph.splice import Rewritten, rewrite
from onnxcp.latency.candidates import dense_stage
from onnxcp.optimization.pipeline import optimize, plan_file
from onnxcp.plan import Choice
from onnxcp.report import Report

RANK = 3
NEWEST = onnx.defs.onnx_opset_version()
X = np.random.default_rng(1).standard_normal((1, 4, 9, 8)).astype(np.float32)
METADATA = {"onnxcp.version": "1", "onnxcp.plan_sha256": "abc"}
Tensors = Mapping[str, np.ndarray]


def model(
    nodes: str, tensors: Tensors, *, opset: int = 13, ir: int = 8, inputs: str = "float[1,4,9,8] x"
) -> onnx.ModelProto:
    """A model from x to y: nodes as ONNX text, and the tensors it stores."""
    made = onnx.parser.parse_model(
        f'<ir_version: {ir}, opset_import: ["" : {opset}]> '
        f"g ({inputs}) => (float[a,b,c,d] y) {{ {nodes} }}"
    )
    made.graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in tensors.items())
    if ir < 4:
        made.graph.input.extend(
            onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims)
            for t in made.graph.initializer
        )
    return made


def factors(shape: Sequence[int], form: str) -> tuple[np.ndarray, ...]:
    """Factors that both a kernel of this shape and its chain are made of."""
    rng = np.random.default_rng(list(shape))
    drawn: tuple[np.ndarray, ...] = FORMS[form].draw(tuple(shape), RANK, rng)
    return drawn


def kernel(*shape: int, form: str = "cp4", dtype: type = np.float32) -> np.ndarray:
    made: np.ndarray = FORMS[form].reconstruct(factors(shape, form), shape)
    return made.astype(dtype)


def find(proto: onnx.ModelProto) -> tuple[tuple[Site, ...], tuple[Skip, ...]]:
    return sites.find(proto, infer(proto, {"x": X.shape}))


def exact(found: Sequence[Site], form: str) -> dict[str, Chain]:
    """The chain of every site that the form takes."""
    row = FORMS[form]
    taken = [s for s in found if row.refuses(s.part) is None]
    return {
        s.name: chain(row, [factors(s.part, form)] * s.group, s.part, s.geometry) for s in taken
    }


def rewritten(
    proto: onnx.ModelProto, form: str = "cp4", external: frozenset[str] = frozenset()
) -> Rewritten:
    found, _ = find(proto)
    return rewrite(proto, exact(found, form), found, metadata=METADATA, external=external)


def in_runtime(proto: onnx.ModelProto, feeds: Tensors) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    results: list[np.ndarray] = ort.InferenceSession(proto.SerializeToString(), options).run(
        None, feeds
    )
    return results


def in_reference(proto: onnx.ModelProto, feeds: Tensors) -> list[np.ndarray]:
    results: list[np.ndarray] = ReferenceEvaluator(proto).run(None, dict(feeds))
    return results


def assert_equal_outputs(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    *,
    run: Callable[[onnx.ModelProto, Tensors], list[np.ndarray]] = in_runtime,
    tolerance: float = 1e-4,
    **feeds: np.ndarray,
) -> None:
    given = {"x": X, **feeds}
    for a, b in zip(run(before, given), run(after, given), strict=True):
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance * np.abs(a).max())


def names(proto: onnx.ModelProto) -> list[str]:
    return [t.name for t in proto.graph.initializer]


# --- what a chain computes

GEOMETRIES = [
    "pads=[1,1,1,1]",
    "pads=[0,2,3,1]",
    "strides=[2,1], pads=[1,0,0,2]",
    "strides=[2,3], dilations=[2,1], pads=[2,1,0,0]",
    "dilations=[1,3], pads=[3,2,1,4]",
    'auto_pad="VALID"',
    'auto_pad="SAME_UPPER", strides=[2,2]',
    'auto_pad="SAME_LOWER", strides=[2,2]',
    'auto_pad="SAME_LOWER"',
]


@pytest.mark.parametrize("attributes", GEOMETRIES)
@pytest.mark.parametrize(
    ("form", "window"), [("cp4", (3, 3)), ("cp4", (2, 5)), ("cp3", (3, 3)), ("cp3", (1, 4))]
)
def test_a_chain_computes_what_its_convolution_did(
    form: str, window: tuple[int, int], attributes: str
) -> None:
    proto = model(f"[a] y = Conv <{attributes}> (x, w)", {"w": kernel(6, 4, *window, form=form)})
    made = rewritten(proto, form).proto
    onnx.checker.check_model(made, full_check=True)
    assert "Conv" not in {n.op_type for n in made.graph.node if n.name == "a"}
    assert_equal_outputs(proto, made)
    if "SAME_LOWER" not in attributes:  # which the reference takes for SAME_UPPER
        assert_equal_outputs(proto, made, run=in_reference)


@pytest.mark.parametrize("bias", ["none", "stored", "computed", "empty"])
def test_a_bias_stays_what_it_was(bias: str) -> None:
    read = {"none": "", "stored": ", b", "computed": ", c", "empty": ', ""'}[bias]
    proto = model("c = Neg (b)  [a] y = Conv (x, w)", {"w": kernel(6, 4, 3, 3), "b": B})
    proto.graph.node[1].input.extend([read.strip(', "')] if read else [])
    made = rewritten(proto).proto
    assert_equal_outputs(proto, made)
    last = made.graph.node[-1]
    assert list(last.input[2:]) == [b for b in proto.graph.node[1].input[2:] if b]
    assert all(len(n.input) == 2 for n in made.graph.node[1:-1])


B = np.arange(6, dtype=np.float32) - 2


@pytest.mark.parametrize("opset", range(7, NEWEST + 1))
def test_every_opset_is_kept(opset: int) -> None:
    proto = model(
        "h = Conv <pads=[1,1,1,1]> (x, w)  y = Relu (h)",
        {"w": kernel(6, 4, 3, 3)},
        opset=opset,
        ir=min(onnx.IR_VERSION, 3 if opset < 9 else 8 if opset < 23 else onnx.IR_VERSION),
    )
    made = rewritten(proto).proto
    onnx.checker.check_model(made, full_check=True)
    assert made.opset_import == proto.opset_import
    assert made.ir_version == proto.ir_version
    assert_equal_outputs(proto, made, run=in_reference)


def test_float16_kernels_become_float16_chains() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> g (float16[1,4,9,8] x) => '
        "(float16[a,b,c,d] y) { y = Conv <pads=[1,1,1,1]> (x, w, b) }"
    )
    for name, values in {"w": kernel(6, 4, 3, 3), "b": B}.items():
        stored = onnx.numpy_helper.from_array(values.astype(np.float16), name)
        proto.graph.initializer.append(stored)
    made = rewritten(proto).proto
    assert {t.data_type for t in made.graph.initializer} == {onnx.TensorProto.FLOAT16}
    half = {"x": X.astype(np.float16)}
    assert_equal_outputs(proto, made, tolerance=1e-2, **half)


def test_float16_kernels_are_fitted_in_float64() -> None:
    proto = model("y = Conv (x, w)", {"w": kernel(6, 4, 3, 3, dtype=np.float16)})
    (site,), _ = find(proto)
    fit = Fits({site.name: site}, seed=0).get(site.name, Choice("cp3", 4)).fits[0]
    assert {f.dtype for f in fit.factors} == {np.dtype(np.float64)}


# --- names, provenance, a second run


def named(proto: onnx.ModelProto, *wanted: str) -> onnx.ModelProto:
    for node, name in zip(proto.graph.node, wanted, strict=True):
        node.name = name
    return proto


TWO = "h = Conv <pads=[1,1,1,1]> (x, v)  y = Conv (h, w)"
TWO_KERNELS = {"v": kernel(4, 4, 3, 3), "w": kernel(6, 4, 3, 3)}


@pytest.mark.parametrize(
    ("form", "roles"),
    [
        ("cp4", ["inputs", "vertical", "horizontal", "outputs"]),
        ("cp3", ["inputs", "window", "outputs"]),
    ],
)
def test_nodes_are_named_after_their_site_and_role(form: str, roles: list[str]) -> None:
    kernels = {"v": kernel(4, 4, 3, 3, form=form), "w": kernel(6, 4, 3, 3, form=form)}
    made = rewritten(named(model(TWO, kernels), "model/a", ""), form).proto
    wanted = [f"{site}/cp/{role}" for site in ("model/a", "Conv:y") for role in roles]
    assert [n.name for n in made.graph.node] == wanted
    stored = [f"{name}.weight" for name in wanted]
    assert names(made) == stored


def test_nodes_of_one_name_get_chains_of_their_own() -> None:
    """ONNX allows equal names; ONNX Runtime does not."""
    proto = named(model(TWO, TWO_KERNELS), "same", "same")
    found, _ = find(proto)
    first = rewrite(proto, exact(found[:1], "cp4"), found, metadata=METADATA).proto
    assert_equal_outputs(proto, first, run=in_reference)
    (left,), _ = find(first)
    second = rewritten(first).proto
    onnx.checker.check_model(second, full_check=True)
    assert_equal_outputs(proto, second, run=in_reference)
    assert len({n.name for n in second.graph.node}) == 8
    assert {left.name, found[0].name} == {"same", "same:h"}


def test_metadata_records_the_run_and_keeps_what_it_held() -> None:
    proto = model(TWO, TWO_KERNELS)
    proto.metadata_props.add(key="author", value="someone")
    made = rewritten(proto).proto
    assert {p.key: p.value for p in made.metadata_props if p.key != "onnxcp.seal"} == {
        "author": "someone",
        "onnxcp.sites": '["Conv:h", "Conv:y"]',
        **METADATA,
    }


def test_a_second_rewrite_adds_its_sites_to_the_record() -> None:
    proto = named(model(TWO, TWO_KERNELS), "a", "b")
    found, _ = find(proto)
    first = rewrite(proto, exact(found[:1], "cp4"), found, metadata=METADATA).proto
    second = rewritten(first).proto
    assert sites.replaced_before(second) == ("a", "b")
    assert_equal_outputs(proto, second)


def test_chains_of_an_earlier_run_are_no_sites() -> None:
    found, skips = find(rewritten(model(TWO, TWO_KERNELS)).proto)
    assert not found
    assert {s.code for s in skips} == {"chain"}
    assert len(skips) == 8


def test_without_chains_the_model_is_a_copy() -> None:
    proto = rich()
    made = rewrite(proto, {}, find(proto)[0], metadata=METADATA).proto
    assert made.SerializeToString(deterministic=True) == proto.SerializeToString(deterministic=True)


# --- what is not replaced

RICH = """
<ir_version: 10, opset_import: ["" : 21, "local" : 2], producer_name: "maker",
 producer_version: "7", domain: "some.where", model_version: 5, doc_string: "about the model">
g (float[n,4,9,8] x, bool c) => (float[a,b,d,e] y, float[f,g,h,i] z)
<float[n,4,h1,w1] h, float[n,4,h2,w2] k> {
    [pre] h = Conv <pads=[1,1,1,1]> (x, v)
    [act] k = local.Act (h)
    [main] m = Conv (k, w, b)
    [branch] y = If (c) <
        then_branch = t () => (float[a,b,d,e] p) { p = Relu (m) },
        else_branch = e () => (float[a,b,d,e] q) { q = Identity (m) }
    >
    [aux] z = Neg (h)
}
<domain: "local", opset_import: ["" : 21], doc_string: "about the function">
Act (i) => (o) { o = Relu (i) }
"""


def rich() -> onnx.ModelProto:
    """A model that uses what ONNX has room for, most of which an export would drop."""
    proto = onnx.parser.parse_model(RICH)
    graph = proto.graph
    tensors = {"v": np.ones((4, 4, 1, 1), np.float32), "w": kernel(6, 4, 3, 3), "b": B}
    for name, values in tensors.items():
        graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        graph.initializer[-1].doc_string = f"about {name}"
        graph.initializer[-1].metadata_props.add(key="of", value=name)
    graph.doc_string = "about the graph"
    graph.metadata_props.add(key="graph", value="kept")
    graph.input[0].doc_string = "about x"
    graph.input[0].type.denotation = "IMAGE"
    graph.output[0].metadata_props.add(key="output", value="kept")
    for node in graph.node:
        node.doc_string = f"about {node.name}"
        node.metadata_props.add(key="stage", value=node.name)
        node.attribute.sort(key=lambda a: a.name, reverse=True)
    note = graph.quantization_annotation.add(tensor_name="k")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="b")
    proto.metadata_props.add(key="author", value="someone")
    proto.functions[0].metadata_props.add(key="function", value="kept")
    proto.training_info.add().algorithm.CopyFrom(
        onnx.parser.parse_graph("step (float[6] g) => (float[6] u) { u = Sub (b, g) }")
    )
    proto.training_info[0].update_binding.add(key="b", value="u")
    return proto


def messages(proto: onnx.ModelProto, without: set[str]) -> Iterator[tuple[str, bytes]]:
    """Every message of a model but the nodes and tensors named in `without`, as bytes."""
    graph = proto.graph
    for field in ("node", "initializer"):
        for item in getattr(graph, field):
            if item.name not in without:
                yield f"{field} {item.name}", item.SerializeToString(deterministic=True)
    shell = onnx.ModelProto()
    shell.CopyFrom(proto)
    for field in ("node", "initializer"):
        shell.graph.ClearField(field)
    shell.ClearField("metadata_props")
    yield "the rest", shell.SerializeToString(deterministic=True)


def test_whatever_is_not_replaced_comes_out_byte_for_byte() -> None:
    proto = rich()
    before = proto.SerializeToString(deterministic=True)
    made = rewritten(proto).proto
    fresh = {n.name for n in made.graph.node} - {n.name for n in proto.graph.node}
    assert len(fresh) == 4
    old = list(messages(proto, {"main", "w"}))
    assert list(messages(made, fresh | {f"{name}.weight" for name in fresh})) == old
    assert made.metadata_props[0].key == "author"
    assert proto.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(made, full_check=True)


def test_a_rich_model_still_computes_the_same() -> None:
    proto = rich()
    proto.ClearField("training_info")
    for flag in (True, False):
        assert_equal_outputs(proto, rewritten(proto).proto, c=np.array(flag))


def test_a_chain_writes_what_its_convolution_wrote() -> None:
    proto = rich()
    made = rewritten(proto).proto
    assert [n.output[0] for n in made.graph.node if n.name.endswith("outputs")] == ["m"]
    assert [n.name for n in made.graph.node if "/cp/" not in n.name] == [
        n.name for n in proto.graph.node if n.name != "main"
    ]


# --- what holds a graph together

# form, nodes, tensors: what only the replaced nodes read must go with them
GRAPHS: dict[str, tuple[str, str, Tensors]] = {
    "convolutions": ("cp4", TWO, TWO_KERNELS),
    "groups": (
        "cp3",
        "y = Conv <group=2> (x, w, b)",
        {"w": np.concatenate([kernel(3, 2, 3, 3, form="cp3")] * 2), "b": B},
    ),
    "a kernel behind copies": (
        "tkd",
        "u = Identity (w)  v = Identity (u)  h = Relu (x)  y = Conv (h, v)",
        {"w": kernel(6, 4, 3, 3, form="tkd")},
    ),
    "MatMul": ("svd", "y = MatMul (x, w)", {"w": kernel(6, 8, form="svd").T}),
    "Gemm": (
        "svd",
        "r = Flatten <axis=3> (x)  g = Gemm (r, w, b)  y = Unsqueeze (g, axes)",
        {"w": kernel(6, 8, form="svd").T, "b": B, "axes": np.array([0, 1])},
    ),
}


@pytest.mark.parametrize("kind", GRAPHS)
def test_graphsurgeon_finds_a_whole_graph_with_nothing_left_over(kind: str) -> None:
    form, nodes, tensors = GRAPHS[kind]
    proto = model(nodes, tensors)
    made = rewritten(proto, form).proto
    assert any("/cp/" in n.name for n in made.graph.node)
    graph = gs.import_onnx(made)
    for node in graph.nodes:
        for tensor in node.inputs:
            assert isinstance(tensor, gs.Constant) or tensor.inputs or tensor in graph.inputs
        for tensor in node.outputs:
            assert tensor.outputs or tensor in graph.outputs
    read = {t.name for t in graph.tensors().values() if isinstance(t, gs.Constant)}
    assert read == set(names(made))
    graph.nodes.reverse()
    graph.toposort()
    assert_equal_outputs(proto, gs.export_onnx(graph))


# --- where kernels lie


def test_a_shared_kernel_is_stored_once() -> None:
    proto = model("h = Conv <pads=[1,1,1,1]> (x, w)  y = Conv (h, w)", {"w": kernel(4, 4, 3, 3)})
    made = rewritten(proto).proto
    assert len(made.graph.node) == 8
    assert len(made.graph.initializer) == 4
    assert_equal_outputs(proto, made)


def constant(name: str, values: np.ndarray) -> onnx.NodeProto:
    tensor = onnx.numpy_helper.from_array(values)
    return onnx.helper.make_node("Constant", [], [name], value=tensor)


@pytest.mark.parametrize("stored", ["initializer", "Constant"])
@pytest.mark.parametrize("copies", ["", "v = Identity (w)", "u = Identity (w)  v = Identity (u)"])
def test_a_kernel_goes_with_the_nodes_that_gave_it(stored: str, copies: str) -> None:
    read = "v" if copies else "w"
    tensors = {"w": kernel(6, 4, 3, 3)} if stored == "initializer" else {}
    proto = model(f"{copies}  y = Conv (x, {read})", tensors)
    if stored == "Constant":
        proto.graph.node.insert(0, constant("w", kernel(6, 4, 3, 3)))
    made = rewritten(proto).proto
    assert {n.op_type for n in made.graph.node} == {"Conv"}
    assert "w" not in names(made)
    assert_equal_outputs(proto, made)


OTHER_READERS = {
    "another node": "y = Conv (x, w)  z = Neg (w)",
    "a graph output": "y = Conv (x, w)",
    "an If body": """
        y = Conv (x, w)
        z = If (c) <
            then_branch = t () => (float[p,q,r,s] i) { i = Neg (w) },
            else_branch = e () => (float[p,q,r,s] j) { j = Identity (w) }
        >""",
    "a copy that is an output": "z = Identity (w)  y = Conv (x, z)",
}


@pytest.mark.parametrize("reader", OTHER_READERS)
def test_a_kernel_with_another_reader_stays(reader: str) -> None:
    nodes, tensors = OTHER_READERS[reader], {"w": kernel(6, 4, 3, 3)}
    proto = model(nodes, tensors, inputs="float[1,4,9,8] x, bool c")
    kind, second = onnx.TensorProto.FLOAT, "z" if "z =" in nodes else "w"
    proto.graph.output.append(onnx.helper.make_tensor_value_info(second, kind, [6, 4, 3, 3]))
    made = rewritten(proto).proto
    onnx.checker.check_model(made, full_check=True)
    assert "w" in names(made)
    assert len([n for n in made.graph.node if "/cp/" in n.name]) == 4
    assert_equal_outputs(proto, made, c=np.array(True))


@pytest.mark.parametrize("use", ["read", "bound", "updated"])
def test_a_kernel_that_training_uses_stays(use: str) -> None:
    proto = model("y = Conv (x, w)", {"w": kernel(6, 4, 3, 3)})
    training = proto.training_info.add()
    read = "w" if use == "read" else "g"
    training.algorithm.CopyFrom(
        onnx.parser.parse_graph(
            f"s (float[6,4,3,3] g) => (float[6,4,3,3] u) {{ u = Neg ({read}) }}"
        )
    )
    if use == "bound":
        training.initialization_binding.add(key="w", value="u")
    if use == "updated":
        training.update_binding.add(key="w", value="u")
    assert "w" in names(rewritten(proto).proto)


def test_up_to_ir_3_new_tensors_are_graph_inputs_too() -> None:
    proto = model(TWO, TWO_KERNELS, ir=3, opset=8)
    made = rewritten(proto).proto
    onnx.checker.check_model(made, full_check=True)
    assert [i.name for i in made.graph.input] == ["x", *names(made)]
    assert_equal_outputs(proto, made)
    site = next(s for s in find(proto)[0] if s.name == "Conv:y")
    dense = rewrite(proto, {"Conv:y": (dense_stage(site),)}, [site], metadata={}).proto
    onnx.checker.check_model(dense, full_check=True)
    assert_equal_outputs(proto, dense)


def test_from_ir_4_new_tensors_are_no_graph_inputs() -> None:
    proto = model(TWO, TWO_KERNELS)
    tensors = [onnx.helper.make_tensor_value_info(n, 1, v.shape) for n, v in TWO_KERNELS.items()]
    proto.graph.input.extend(tensors)
    made = rewritten(proto).proto
    onnx.checker.check_model(made, full_check=True)
    assert [i.name for i in made.graph.input] == ["x"]
    assert_equal_outputs(proto, made)


def test_new_tensors_take_names_that_are_free() -> None:
    proto = named(model("y = Conv (x, w)", {"w": kernel(6, 4, 3, 3)}), "a")
    taken = onnx.numpy_helper.from_array(B, "a/cp/inputs.weight")
    proto.graph.initializer.append(taken)
    made = rewritten(proto).proto
    assert len(set(names(made))) == len(names(made)) == 5
    assert_equal_outputs(proto, made)


def test_a_dense_stage_takes_the_place_of_the_models_own() -> None:
    proto = rich()
    proto.ClearField("training_info")
    before = proto.SerializeToString(deterministic=True)
    found, _ = find(proto)
    main = next(s for s in found if s.name == "main")
    stage = Stage("dense", 2 * kernel(6, 4, 3, 3), main.geometry)
    doubled = rewrite(proto, {"main": (stage,)}, found, metadata={}).proto
    flag = {"x": X, "c": np.array(False)}
    old, new = in_runtime(proto, flag)[0], in_runtime(doubled, flag)[0]
    np.testing.assert_allclose(new - B[:, None, None], 2 * (old - B[:, None, None]), rtol=1e-3)
    assert "w" not in names(doubled)
    assert proto.SerializeToString(deterministic=True) == before


# --- external data


def outside(proto: onnx.ModelProto) -> dict[str, dict[str, str]]:
    """External data entries by tensor name."""
    return {
        t.name: {e.key: e.value for e in t.external_data}
        for t in io.tensors(proto)
        if t.data_location == onnx.TensorProto.EXTERNAL
    }


def saved_outside(folder: Path) -> Path:
    """A model with all its tensors in a file of their own."""
    other = np.random.default_rng(2).standard_normal((6, 6, 1, 1)).astype(np.float32)
    proto = model(
        "h = Conv (x, w)  y = Conv (h, o, b)", {"w": kernel(6, 4, 3, 3), "o": other, "b": B}
    )
    path = folder / "outside.onnx"
    onnx.save_model(proto, path, save_as_external_data=True, size_threshold=0, location="w.bin")
    return path


def test_external_data_stays_external_without_the_replaced_kernels(tmp_path: Path) -> None:
    loaded = io.load(saved_outside(tmp_path))
    assert loaded.external == {"w", "o", "b"}
    made = rewritten(loaded.proto, external=loaded.external)
    path = tmp_path / "made.onnx"
    io.save(made.proto, path, made.external)
    onnx.checker.check_model(str(path), full_check=True)

    entries = outside(onnx.load(path, load_external_data=False))
    assert entries.keys() == set(names(made.proto))
    assert "w" not in entries
    assert {e["location"] for e in entries.values()} == {"made.onnx.data"}
    assert all(int(e["offset"]) % 4096 == 0 for e in entries.values())
    data = (tmp_path / "made.onnx.data").read_bytes()
    assert kernel(6, 4, 3, 3).tobytes() not in data
    again = io.load(path).proto
    assert_equal_outputs(loaded.proto, again)
    old = {t.name: t.raw_data for t in loaded.proto.graph.initializer}
    new = {t.name: t.raw_data for t in again.graph.initializer}
    assert {n: new[n] for n in ("o", "b")} == {n: old[n] for n in ("o", "b")}


def test_saving_leaves_the_model_in_memory_whole(tmp_path: Path) -> None:
    loaded = io.load(saved_outside(tmp_path))
    before = [(t.name, t.raw_data) for t in loaded.proto.graph.initializer]
    io.save(loaded.proto, tmp_path / "copy.onnx", loaded.external)
    assert [(t.name, t.raw_data) for t in loaded.proto.graph.initializer] == before
    assert_equal_outputs(loaded.proto, loaded.proto)


def test_constants_with_external_data_leave_other_constants_inside(tmp_path: Path) -> None:
    proto = model("y = Reshape (r, s)", {})
    proto.graph.node.insert(0, constant("w", kernel(6, 4, 3, 3)))
    proto.graph.node.insert(1, constant("s", np.array([1, -1, 1, 6])))
    proto.graph.node.insert(2, onnx.helper.make_node("Conv", ["x", "w"], ["r"]))
    tensor = proto.graph.node[0].attribute[0].t
    (tmp_path / "w.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    onnx.save(proto, tmp_path / "in.onnx")

    loaded = io.load(tmp_path / "in.onnx")
    io.save(loaded.proto, tmp_path / "out.onnx", loaded.external)
    shape = onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.node[1]
    assert not shape.attribute[0].t.external_data
    made = rewritten(loaded.proto, external=loaded.external)
    assert_equal_outputs(loaded.proto, made.proto)


# --- the whole run


def forced(path: Path, *ranks: str, output: str = "out.onnx") -> Report:
    return optimize(settings(path, path.with_name(output), rank=ranks or ("*=4",)))


def test_a_run_leaves_its_provenance_and_a_second_one_its_chains(tmp_path: Path) -> None:
    path = tmp_path / "in.onnx"
    onnx.save(named(model(TWO, TWO_KERNELS), "a", "b"), path)
    report = forced(path, "*=4")
    assert report.exit_code == 0
    assert report.verification is not None
    assert report.verification.relative_l2 < 1e-5
    output = tmp_path / "out.onnx"
    metadata = {p.key: p.value for p in onnx.load(output).metadata_props}
    plan = json.loads(plan_file(output).read_text())
    choices = sorted((n, row["form"], row["rank"]) for n, row in plan["sites"].items())
    chains = json.loads(metadata.pop("onnxcp.chains"))
    assert len(metadata.pop("onnxcp.seal")) == 64
    assert [(n, row["form"], row["rank"]) for n, row in chains.items()] == choices
    assert metadata == {
        "onnxcp.version": __version__,
        "onnxcp.source_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "onnxcp.plan_sha256": hashlib.sha256(json.dumps(choices).encode()).hexdigest(),
        "onnxcp.sites": '["a", "b"]',
    }
    again = forced(output, "*=4", output="again.onnx")
    assert again.exit_code == 1
    assert {s.reason for s in again.sites} == {sites.LEFT_ALONE["chain"]}
    assert not (tmp_path / "again.onnx").exists()


def test_stored_tensors_that_callers_may_replace_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "in.onnx"
    proto = model("y = Conv (x, w)", {"w": kernel(6, 4, 3, 3)})
    proto.graph.input.append(onnx.helper.make_tensor_value_info("w", 1, [6, 4, 3, 3]))
    onnx.save(proto, path)
    assert any("graph inputs too" in w for w in forced(path).warnings)
    onnx.save(model("y = Conv (x, w)", {"w": kernel(6, 4, 3, 3)}, ir=3, opset=8), path)
    assert not any("graph inputs too" in w for w in forced(path, output="ir3.onnx").warnings)


def test_a_relative_rank_stops_at_the_largest_useful_one(tmp_path: Path) -> None:
    path = tmp_path / "in.onnx"
    first, rest = kernel(16, 1, 3, 3), kernel(6, 16, 3, 3)
    nodes = "h = Conv (x, v)  y = Conv (h, w)"
    onnx.save(model(nodes, {"v": first, "w": rest}, inputs="float[1,1,9,8] x"), path)
    report = forced(path, "*=1.0c")
    assert report.sites[0].rank == 9
    assert report.exit_code == 0


def test_a_site_without_candidates_is_kept_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "in.onnx"
    onnx.save(model("y = Conv (x, w)", {"w": kernel(6, 1, 3, 3)}, inputs="float[1,1,9,8] x"), path)
    report = optimize(settings(path, tmp_path / "out.onnx"))
    assert report.exit_code == 1
    assert [s.reason for s in report.sites] == ["no candidate rank saves multiply-adds"]


def test_a_model_without_sites_is_never_run(tmp_path: Path) -> None:
    """Made-up inputs do not suit every model: here a run would fail."""
    path = tmp_path / "in.onnx"
    proto = model("f = Reshape (x, s)  y = Relu (f)", {}, inputs="float[1,4,9,8] x, int64[1] s")
    onnx.save(proto, path)
    report = forced(path, "*=1.0c")
    assert report.exit_code == 1
    assert "no layer that a chain could replace" in report.verdict


# --- over 2 GiB

HUGE = 2_200_000_000  # bytes of one tensor: more than a protocol buffer message holds


def huge(folder: Path) -> Path:
    """A small convolution, then a product with a matrix of zeros that the disk holds as a
    hole; all but the last of its columns, which hold ones, are dropped again."""
    columns = HUGE // (4 * 6)
    proto = model(
        """
        h = com.microsoft.Gelu (x)  c = Conv (h, w)
        p = GlobalAveragePool (c)  f = Flatten (p)  g = MatMul (f, huge)
        l = Slice (g, first, last, axis)  y = Unsqueeze (l, axes)
        """,
        {
            "w": kernel(6, 4, 3, 3),
            "first": np.array([columns - 2]),
            "last": np.array([columns]),
            "axis": np.array([1]),
            "axes": np.array([2, 3]),
        },
    )
    proto.opset_import.add(domain="com.microsoft", version=1)
    tensor = proto.graph.initializer.add(name="huge", data_type=1, dims=[6, columns])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entries = {"location": "huge.bin", "offset": 0, "length": 4 * 6 * columns}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    one = np.ones(2, np.float32).tobytes()
    with (folder / "huge.bin").open("wb") as stream:
        for row in range(1, 7):
            stream.seek(4 * columns * row - len(one))
            stream.write(one)
    path = folder / "huge.onnx"
    onnx.save(proto, path)
    return path


@pytest.mark.slow
def test_a_model_over_2_gib_is_rewritten(tmp_path: Path) -> None:
    source, output = huge(tmp_path), tmp_path / "out.onnx"
    try:
        report = forced(source, "*=3")
        assert report.exit_code == 0
        assert report.verification is not None
        onnx.checker.check_model(str(output))
        before, after = (
            ort.InferenceSession(path).run(None, {"x": X})[0] for path in (source, output)
        )
        assert np.abs(before).max() > 0
        assert report.sites[0].error is not None
        assert report.sites[0].error < 1e-2
        np.testing.assert_allclose(after, before, atol=0.05 * np.abs(before).max())
        assert output.stat().st_size < 2**20
        assert io.data_file(output).stat().st_size > 2**31
    finally:
        for path in tmp_path.iterdir():
            path.unlink()
