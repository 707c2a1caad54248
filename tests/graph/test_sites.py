"""Every convolution is a site or a skip with its reason; padding is made explicit or not at
all. The oracle for padding is ONNX Runtime, which resolves auto_pad itself."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from rounding import assert_same_sums, magnitude

from onnxcp.chain import cost
from onnxcp.errors import ModelError
from onnxcp.graph import sites
from onnxcp.graph.input_specs import concrete_shapes
from onnxcp.graph.io import Model, load
from onnxcp.graph.shapes import infer
from onnxcp.graph.sites import LEFT_ALONE, Site, Skip
from onnxcp.latency.candidates import dense_stage
from onnxcp.runtime.providers import Target
from onnxcp.runtime.survey import inferred, survey

IMAGE = "1,4,9,8"
Tensors = Mapping[str, np.ndarray | onnx.TensorProto]


def model(
    nodes: str, tensors: Tensors | None = None, *, inputs: str = "", functions: str = ""
) -> onnx.ModelProto:
    """A model from x to y: nodes as ONNX text, and the tensors it stores."""
    inputs = inputs or f"float[{IMAGE}] x"
    made = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 16, "local" : 1, "com.microsoft" : 1]> '
        f"g ({inputs}) => (float[a,b,c,d] y) {{ {nodes} }} {functions}"
    )
    for name, values in (tensors or {}).items():
        if isinstance(values, np.ndarray):
            values = onnx.numpy_helper.from_array(values, name)
        made.graph.initializer.append(values)
    return made


def weight(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def find(made: onnx.ModelProto) -> tuple[tuple[Site, ...], tuple[Skip, ...]]:
    """Sites and skips at the sizes the model states."""
    specs = loaded(made).inputs
    fixed = {s.name: s.dims for s in specs if all(isinstance(d, int) for d in s.dims or ("?",))}
    return sites.find(made, infer(made, fixed))  # type: ignore[arg-type]


def loaded(made: onnx.ModelProto) -> Model:
    return Model(Path("model.onnx"), made, "")


CONV = "y = Conv (x, w)"
KERNEL = {"w": weight(6, 4, 3, 3)}
BRANCHES = """
    y = If (c) <
        then_branch = t () => (float[a,b,c,d] p) { [inner] p = Conv (x, w) },
        else_branch = e () => (float[a,b,c,d] q) { q = Identity (x) }
    >"""
LOOP = """
    y = Loop (n, c, x) <
        body = b (int64 i, bool go, float[a,b,c,d] r) => (bool on, float[a,b,c,d] s)
        { on = Identity (go)  s = Conv (r, w) }
    >"""
FUNCTION = '<domain: "local", opset_import: ["" : 16]> twice (a, b) => (r) { r = Conv (a, b) }'
NESTED_FUNCTION = """
<domain: "local", opset_import: ["" : 16]> twice (a, b, c) => (r) {
    r = If (c) <
        then_branch = t () => (p) { p = Conv (a, b) },
        else_branch = e () => (q) { q = Identity (a) }
    >
}"""


def earlier_run() -> onnx.ModelProto:
    made = model(CONV, KERNEL)
    made.graph.node[0].name = "old/cp/window"
    made.metadata_props.add(key=sites.MADE_BY_US, value="other\nold")
    return made


def bfloat16() -> onnx.ModelProto:
    tensor = onnx.helper.make_tensor("w", onnx.TensorProto.BFLOAT16, [6, 4, 3, 3], [0.5] * 216)
    return model(CONV, {"w": tensor})


def shortcut() -> onnx.ModelProto:
    made = model(CONV, KERNEL)
    made.graph.node[0].name = "pad"
    made.metadata_props.add(key=sites.SHORTCUTS, value="pad")
    return made


# code of LEFT_ALONE → models whose only convolution or product is left alone for it, and a
# part of the reason
def declared(made: onnx.ModelProto, *dims: int) -> onnx.ModelProto:
    """The same with a weight said to be of other dimensions."""
    made.graph.initializer[0].dims[:] = dims
    return made


SKIPPED = {
    "chain": [(earlier_run(), "earlier run")],
    "shortcut": [(shortcut(), "a shortcut")],
    "nested": [
        (model(BRANCHES, KERNEL, inputs=f"float[{IMAGE}] x, bool c"), "inside If"),
        (
            model(LOOP, KERNEL, inputs="float[1,4,9,8] x, int64 n, bool c"),
            "inside Loop",
        ),
        (model("y = local.twice (x, w)", KERNEL, functions=FUNCTION), "local function 'twice'"),
        (
            model(
                "y = local.twice (x, w, c)",
                KERNEL,
                inputs=f"float[{IMAGE}] x, bool c",
                functions=NESTED_FUNCTION,
            ),
            "local function 'twice'",
        ),
    ],
    "operator": [
        (model("y = ConvTranspose (x, w)", {"w": weight(4, 6, 3, 3)}), "ConvTranspose"),
        (model("y = com.microsoft.FusedConv (x, w)", KERNEL), "FusedConv"),
        (model("y = com.microsoft.Conv (x, w)", KERNEL), "Conv is not a plain Conv"),
    ],
    "first": [
        (model("y = MatMul (w, x)", {"w": weight(5, 9)}), "first factor"),
        (model("f = Flatten (x)  y = Gemm <transB=1> (w, f)", {"w": weight(3, 288)}), "first"),
        (model("y = MatMul (v, w)", {"v": weight(5, 9), "w": weight(9, 8)}), "first factor"),
    ],
    "scaled": [
        (model("f = Flatten (x)  y = Gemm <transA=1> (f, w)", {"w": weight(1, 5)}), "transA=1"),
        (model("f = Flatten (x)  y = Gemm <alpha=0.5> (f, w)", {"w": weight(288, 5)}), "alpha=0.5"),
        (
            model(
                "f = Flatten (x)  y = Gemm <beta=2.0> (f, w, b)",
                {"w": weight(288, 5), "b": weight(5)},
            ),
            "beta=2",
        ),
    ],
    "computed": [
        (model("v = Erf (w)  y = Conv (x, v)", KERNEL), "by Erf"),
        (model(CONV, inputs=f"float[{IMAGE}] x, float[6,4,3,3] w"), "an input of the graph"),
    ],
    "quantized": [
        (
            model(
                "v = DequantizeLinear (q, s)  y = Conv (x, v)",
                {"q": np.ones((6, 4, 3, 3), np.int8), "s": np.array(0.1, np.float32)},
            ),
            "already quantized",
        )
    ],
    "dtype": [(bfloat16(), "bfloat16")],
    "dimensions": [
        (model("y = MatMul (x, w)", {"w": weight(4, 8, 5)}), "4×8×5"),
        (model("y = MatMul (x, w)", {"w": weight(8)}), "a weight of 8:"),
        (model(CONV, {"w": weight(6, 4)}, inputs="float[1,4] x"), "6×4"),
    ],
    "not finite": [
        (
            model("y = Conv (x, w)", {"w": np.full((6, 4, 3, 3), np.nan, np.float32)}),
            "216 of 216 weights are NaN or infinite",
        ),
        (
            model("y = Conv (x, w, b)", {**KERNEL, "b": np.array([1, 2, 3, 4, 5, np.inf], "f")}),
            "1 of 6 numbers of its bias are NaN or infinite",
        ),
    ],
    "depthwise": [(model("y = Conv <group=4> (x, w)", {"w": weight(8, 1, 3, 3)}), "depthwise")],
    "padding": [
        (
            model(
                'y = Conv <auto_pad="SAME_UPPER", strides=[2,2]> (x, w)',
                KERNEL,
                inputs="float[1,4,h,w] x",
            ),
            "SAME_UPPER depends on an input size that is not fixed",
        ),
        (
            model(
                'y = Conv <auto_pad="SAME_LOWER", strides=[2]> (x, w)',
                {"w": weight(6, 4, 3)},
                inputs="float[1,4,l] x",
            ),
            "SAME_LOWER depends",
        ),
    ],
    "empty": [
        (model(CONV, {"w": weight(0, 4, 3, 3)}), "no elements"),
        (model("y = MatMul (x, w)", {"w": weight(8, 0)}), "no elements"),
    ],
    "large": [(declared(model("y = MatMul (x, w)", {"w": weight(8, 6)}), 8, 2**26), "too large")],
}


def test_every_reason_to_leave_a_node_has_a_model() -> None:
    assert SKIPPED.keys() == LEFT_ALONE.keys()


@pytest.mark.parametrize(
    ("code", "made", "words"), [(c, m, w) for c, rows in SKIPPED.items() for m, w in rows]
)
def test_a_node_left_alone_says_why(code: str, made: onnx.ModelProto, words: str) -> None:
    found, skips = find(made)
    assert not found
    assert [s.code for s in skips] == [code]
    assert words in skips[0].reason
    assert not re.search(r"[{}]", skips[0].reason)


def test_a_dense_convolution_is_a_site() -> None:
    (site,), skips = find(model("[a] y = Conv <pads=[1,0,2,1]> (x, w, b)", {**KERNEL, "b": B}))
    assert not skips
    assert (site.name, site.shape, site.image, site.batch) == ("a", (6, 4, 3, 3), (9, 8), 1)
    np.testing.assert_array_equal(site.kernel, KERNEL["w"])
    np.testing.assert_array_equal(site.bias, B)
    assert site.layer.macs == 6 * 4 * 9 * (9 + 3 - 2) * (8 + 1 - 2)
    assert site.layer.parameters == KERNEL["w"].size


B = np.arange(6, dtype=np.float32)
CONVOLUTIONS = {
    "pointwise": (weight(6, 4, 1, 1), 1, (9, 8)),
    "1-D": (weight(6, 4, 3), 1, (9,)),
    "3-D": (weight(6, 4, 3, 2, 1), 1, (9, 8, 7)),
    "grouped": (weight(6, 2, 3, 3), 2, (9, 8)),
    "grouped 1-D": (weight(6, 2, 3), 2, (9,)),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_any_window_and_any_groups_make_a_site(kind: str) -> None:
    kernel, group, image = CONVOLUTIONS[kind]
    size = ",".join(map(str, image))
    made = model(f"y = Conv <group={group}> (x, w)", {"w": kernel}, inputs=f"float[1,4,{size}] x")
    (site,), skips = find(made)
    assert not skips
    assert (site.group, site.image, site.geometry.dimensions) == (group, image, len(image))
    assert site.part == (6 // group, *kernel.shape[1:])
    assert site.layer.macs == cost([dense_stage(site)], image).macs
    np.testing.assert_array_equal(site.kernel, kernel)


# nodes of a product, shape of its stored weight, and batch, image and multiply-adds
PRODUCTS = {
    "MatMul of rows": ("y = MatMul (x, w)", "3,4", (4, 6), 3, (), 24),
    "MatMul of one row": ("y = MatMul (x, w)", "4", (4, 6), 1, (), 24),
    "MatMul of sequences": ("y = MatMul (x, w)", "3,5,7,4", (4, 6), 3, (5, 7), 24 * 35),
    "Gemm": ("y = Gemm (x, w)", "3,4", (4, 6), 3, (), 24),
    "Gemm with alpha 1": ("y = Gemm <alpha=1.0, beta=2.0> (x, w)", "3,4", (4, 6), 3, (), 24),
    "Gemm, transposed": ("y = Gemm <transB=1> (x, w)", "3,4", (6, 4), 3, (), 24),
}


@pytest.mark.parametrize("kind", PRODUCTS)
def test_a_product_with_a_stored_matrix_is_a_site(kind: str) -> None:
    nodes, shape, stored, batch, image, macs = PRODUCTS[kind]
    (site,), skips = find(model(nodes, {"w": weight(*stored)}, inputs=f"float[{shape}] x"))
    assert not skips
    assert (site.shape, site.batch, site.image, site.source) == ((6, 4), batch, image, "x")
    wanted = weight(*stored) if stored == (6, 4) else weight(*stored).T
    np.testing.assert_array_equal(site.kernel, wanted)
    assert site.layer.macs == macs == cost([dense_stage(site)], image).macs
    assert site.layer.shape == stored


@pytest.mark.parametrize(
    ("shape", "found"),
    [((6,), True), ((1, 6), True), ((), True), ((1,), True), ((3, 6), False), ((3, 1), False)],
)
def test_the_third_input_of_a_gemm_is_a_bias_if_all_rows_get_the_same(
    shape: tuple[int, ...], found: bool
) -> None:
    tensors = {"w": weight(4, 6), "c": weight(*shape)}
    (site,), _ = find(model("y = Gemm (x, w, c)", tensors, inputs="float[3,4] x"))
    assert site.bias_computed is not found
    if found:
        np.testing.assert_array_equal(site.bias, np.broadcast_to(weight(*shape), (1, 6))[0])
    else:
        assert site.bias is None


def test_a_product_of_no_rows_is_no_misfit() -> None:
    """Heads of detectors see none where nothing is detected."""
    made = model("y = MatMul (x, w)", {"w": weight(4, 6)}, inputs="float[a,b,4] x")
    (site,), _ = sites.find(made, {"x": (1, 0, 4), "y": (1, 0, 6)})
    assert site.image == (0,)


def test_products_of_two_computed_tensors_are_not_listed() -> None:
    made = model("y = MatMul (x, x)", inputs="float[1,4,8,8] x")
    assert find(made) == ((), ())


def test_kernels_that_one_weight_gives_in_two_ways_are_told_apart() -> None:
    made = model(
        "a = MatMul (x, w)  b = MatMul (a, w)  c = Gemm <transB=1> (b, w)  y = Gemm (c, w)",
        {"w": weight(4, 4)},
        inputs="float[3,4] x",
    )
    turned, again, plain, third = find(made)[0]
    assert turned.tensor == again.tensor == third.tensor != plain.tensor
    made = model("a = Conv (x, w)  z = Concat <axis=1> (x, x)  y = Conv <group=2> (z, w)", KERNEL)
    whole, grouped = find(made)[0]
    assert whole.tensor != grouped.tensor


@pytest.mark.parametrize("group", [0, -1, 4])
def test_groups_that_do_not_divide_the_outputs_are_refused(group: int) -> None:
    made = model(f"y = Conv <group={group}> (x, w)", KERNEL)
    made.graph.input[0].type.tensor_type.ClearField("shape")  # inference would refuse it first
    with pytest.raises(ModelError, match="do not fall into"):
        find(made)


@pytest.mark.parametrize("attribute", ["strides=[1,1]", "pads=[1,1]", "dilations=[0,1,1]"])
def test_attributes_of_other_dimensions_are_refused(attribute: str) -> None:
    made = model(
        f"y = Conv <{attribute}> (x, w)", {"w": weight(6, 4, 2, 2, 2)}, inputs="float[a,b,c,d,e] x"
    )
    with pytest.raises(ModelError, match="3-D convolution"):
        find(made)


def test_a_bias_computed_at_run_time_is_no_obstacle() -> None:
    (site,), _ = find(model("c = Erf (b)  y = Conv (x, w, c)", {**KERNEL, "b": B}))
    assert site.bias is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_kernel_keeps_its_dtype(dtype: type) -> None:
    kind = {np.float16: "float16", np.float32: "float", np.float64: "double"}[dtype]
    made = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 13]> g ({kind}[1,4,9,9] x) => ({kind}[a,b,c,d] y) '
        f"{{ {CONV} }}"
    )
    made.graph.initializer.append(
        onnx.numpy_helper.from_array(weight(6, 4, 3, 3, dtype=dtype), "w")
    )
    (site,), _ = find(made)
    assert site.kernel.dtype == dtype


def constant(name: str, values: np.ndarray) -> onnx.NodeProto:
    tensor = onnx.numpy_helper.from_array(values)
    return onnx.helper.make_node("Constant", [], [name], value=tensor)


@pytest.mark.parametrize(
    ("nodes", "where"),
    [
        ("y = Conv (x, w)", "initializer"),
        ("y = Conv (x, w)", "Constant"),
        ("v = Identity (w)  y = Conv (x, v)", "initializer"),
        ("u = Identity (w)  v = Identity (u)  y = Conv (x, v)", "Constant"),
    ],
)
def test_a_stored_kernel_is_found_wherever_it_is_stored(nodes: str, where: str) -> None:
    made = model(nodes, KERNEL if where == "initializer" else {})
    if where == "Constant":
        made.graph.node.insert(0, constant("w", KERNEL["w"]))
    (site,), skips = find(made)
    assert not skips
    np.testing.assert_array_equal(site.kernel, KERNEL["w"])


def test_every_convolution_of_a_model_is_counted_once() -> None:
    made = model(
        BRANCHES.replace("(x, w)", "(z, w)") + "z = Conv <pads=[1,1,1,1]> (x, w)",
        {"w": weight(4, 4, 3, 3)},
        inputs=f"float[{IMAGE}] x, bool c",
        functions=FUNCTION,
    )
    found, skips = find(made)
    assert len(found) == 1
    assert sorted(s.reason.split(":")[0] for s in skips) == [
        "inside If ''",
        "inside the local function 'twice'",
    ]


def test_unnamed_nodes_and_equal_names_get_unique_names() -> None:
    tensors = {"w": weight(4, 4, 3, 3)}
    made = model(
        "a = Conv (x, w)  [same] b = Conv (a, w)  [same] c = Conv (b, w)  [own] y = Relu (c)",
        tensors,
    )
    assert sites.node_names(made.graph) == ["Conv:a", "same:b", "same:c", "own"]


MODES = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
EDGES = [
    (window, stride, dilation, size)
    for window in ((3, 3), (1, 4))
    for stride in ((1, 1), (2, 3))
    for dilation in ((1, 1), (2, 1))
    for size in ((9, 8), (12, 11))
]
EDGES += [
    ((4,), (1,), (1,), (9,)),
    ((3,), (2,), (2,), (12,)),
    ((3, 1, 2), (1, 1, 1), (1, 1, 1), (5, 6, 7)),
    ((2, 3, 2), (2, 1, 3), (1, 2, 1), (8, 6, 9)),
]


def run(made: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(made.SerializeToString(), options)
    result: np.ndarray = session.run(None, {"x": x})[0]
    return result


def conv(
    window: tuple[int, ...],
    size: tuple[int, ...] | str,
    attributes: str,
    kernel: np.ndarray | None = None,
) -> onnx.ModelProto:
    shape = size if isinstance(size, str) else ",".join(map(str, size))
    return model(
        f"y = Conv <{attributes}> (x, w)",
        {"w": weight(3, 2, *window) if kernel is None else kernel},
        inputs=f"float[1,2,{shape}] x",
    )


def listed(**attributes: tuple[int, ...]) -> str:
    return ", ".join(f"{name}={list(values)}" for name, values in attributes.items())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("window", "stride", "dilation", "size"), EDGES)
def test_explicit_padding_equals_auto_pad(
    mode: str,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    size: tuple[int, ...],
) -> None:
    """ONNX Runtime refuses SAME with dilations: it gets the kernel with zeros in its holes."""
    slide, auto = listed(strides=stride), f'auto_pad="{mode}"'
    made = conv(window, size, f"{auto}, {slide}, {listed(dilations=dilation)}")
    (site,), _ = find(made)
    pads, holes = listed(pads=site.geometry.pads), listed(dilations=dilation)
    explicit = conv(window, size, f"{pads}, {slide}, {holes}")
    oracle = conv(window, size, f"{auto}, {slide}", spread(weight(3, 2, *window), dilation))
    x = weight(1, 2, *size)
    result = run(oracle, x)
    np.testing.assert_allclose(run(explicit, x), result, rtol=1e-5, atol=1e-5)
    assert site.geometry.output(window, size) == result.shape[2:]  # type: ignore[arg-type]


def spread(kernel: np.ndarray, dilation: tuple[int, ...]) -> np.ndarray:
    """A dense kernel that does what `kernel` does with a dilation."""
    sizes = [(size - 1) * step + 1 for size, step in zip(kernel.shape[2:], dilation, strict=True)]
    dense = np.zeros((*kernel.shape[:2], *sizes), kernel.dtype)
    dense[:, :, *[slice(None, None, step) for step in dilation]] = kernel
    return dense


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_padding_at_stride_one_needs_no_size(mode: str) -> None:
    made = conv((2, 3), "h,w", f'auto_pad="{mode}"')
    (site,), _ = find(made)
    explicit = conv((2, 3), "h,w", listed(pads=site.geometry.pads))
    for size in ((5, 6), (8, 7)):
        x = weight(1, 2, *size)
        result, wanted = run(explicit, x), run(made, x)
        assert_same_sums(result, wanted, magnitude(explicit, {"x": x}), terms=2 * 2 * 3)


SAME_AT_STRIDE_2 = 'y = Conv <auto_pad="SAME_UPPER", strides=[2,2]> (x, w)'


def surveyed(made: onnx.ModelProto, **shapes: tuple[int, ...]) -> list[str]:
    """Codes of what is left alone in a run at the given shapes, and "site" for each site."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(made, path)
        subject = Model(path, made, "")
        inputs = concrete_shapes(subject.inputs, overrides=shapes)
        feeds = {n: np.zeros(s, np.float32) for n, s in inputs.items()}
        found, skips = survey(subject, inputs, Target.named("cpu", 1), feeds)
    assert all(site.image is not None for site in found)
    return [s.code for s in skips] + ["site" for _ in found]


def test_padding_for_the_shape_of_one_run_is_not_made_explicit() -> None:
    made = model(SAME_AT_STRIDE_2, KERNEL, inputs="float[1,4,h,w] x")
    assert surveyed(made, x=(1, 4, 9, 9)) == ["padding"]
    found, skips = inferred(loaded(made), {"x": (1, 4, 9, 9)})
    assert not found
    assert [s.code for s in skips] == ["padding"]


def test_a_free_batch_leaves_padding_fixed() -> None:
    assert surveyed(model(SAME_AT_STRIDE_2, KERNEL, inputs="float[n,4,9,9] x")) == ["site"]


@pytest.mark.parametrize(("image", "code"), [("9,9", "site"), ("h,w", "padding")])
def test_a_size_only_the_runtime_knows_counts_as_fixed_if_the_inputs_are(
    image: str, code: str
) -> None:
    nodes = f"z = com.microsoft.Gelu (x)  {SAME_AT_STRIDE_2.replace('(x', '(z')}"
    made = model(nodes, KERNEL, inputs=f"float[1,4,{image}] x")
    assert surveyed(made, x=(1, 4, 9, 9)) == [code]


def test_the_image_of_a_site_is_traced_where_inference_stops() -> None:
    made = model("z = com.microsoft.Gelu (x)  y = Conv (z, w)", KERNEL)
    assert find(made)[0][0].image is None
    assert surveyed(made) == ["site"]


def test_the_rows_of_a_product_are_traced_where_inference_stops() -> None:
    made = model("z = com.microsoft.Gelu (x)  y = MatMul (z, w)", {"w": weight(8, 5)})
    assert find(made)[0][0].image is None
    assert surveyed(made) == ["site"]


def test_the_checkers_warnings_stay_out_of_stdout(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It prints a line on experimental operators, which would spoil `inspect --json`."""
    made = onnx.parser.parse_model(
        '<ir_version: 3, opset_import: ["" : 7]> g (float[1,4] x) => (float[a,b] y) '
        "{ y = Affine <alpha=1.0, beta=0.0> (x) }"
    )
    onnx.save(made, tmp_path / "model.onnx")
    load(tmp_path / "model.onnx")
    out, err = capfd.readouterr()
    assert not out
    assert "experimental" in err
