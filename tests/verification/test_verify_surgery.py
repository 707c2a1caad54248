"""`verify` on models that onnxcp wrote: honest chains pass, and every planted fault is found and
named, with no option at all."""

import numpy as np
import onnx
import pytest
from node_kinds import CONVOLUTIONS, PRODUCTS
from written import change_values, edited, model, node, tensor, verify, write

from onnxcp.forms import FORMS
from onnxcp.forms.grouped import part_of
from onnxcp.verification import recompose

RNG = np.random.default_rng(0)


def drawn(*shape):
    return RNG.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))


# --- what is right passes

TAKEN = [
    (kind, form)
    for kind, (_, shape, group, _) in CONVOLUTIONS.items()
    for form, row in FORMS.items()
    if row.refuses(part_of(shape, group)) is None
]
BIASES = {"none": "", "kept": ", b", "computed": ", c", "corrected": ", b"}


def interface(shape, count):
    return f"float[{','.join(map(str, shape))}] x) => (float[{','.join('abcdef'[:count])}] y"


def passes(folder, form, shape, node_text, tensors, bias=None, **options):
    options.setdefault("interface", interface(shape, len(shape)))
    reference = model(folder / "m.onnx", node_text, tensors, **options)
    candidate = write(reference, folder / "c.onnx", {"a": form}, shape, bias and {"a": bias()})
    code, text = verify(reference, candidate)
    assert (code, text.startswith("surgery: 1 chain, exact to rounding")) == (0, True), text


@pytest.mark.parametrize(("kind", "form"), TAKEN)
def test_honest_chains_of_every_form_pass(tmp_path, kind, form):
    attributes, weight, group, image = CONVOLUTIONS[kind]
    tensors = {"w": drawn(*weight), "b": drawn(weight[0])}
    shape = (2, weight[1] * group, *image)
    passes(tmp_path, form, shape, f"[a] y = Conv <{attributes}> (x, w, b)", tensors)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("kind", ["1-D", "2-D groups dilated", "3-D same"])
def test_every_kind_of_bias_passes(tmp_path, kind, bias):
    attributes, weight, group, image = CONVOLUTIONS[kind]
    nodes = f"c = Neg (b) [a] y = Conv <{attributes}> (x, w{BIASES[bias]})"
    own = (lambda: drawn(weight[0])) if bias == "corrected" else None
    tensors = {"w": drawn(*weight), "b": drawn(weight[0])}
    passes(tmp_path, "svd", (2, weight[1] * group, *image), nodes, tensors, own)


@pytest.mark.parametrize("is_corrected", [False, True])
@pytest.mark.parametrize("kind", PRODUCTS)
def test_honest_products_pass(tmp_path, kind, is_corrected):
    text, weight, third, shape, _ = PRODUCTS[kind]
    tensors = {"w": weight} | ({} if third is None else {"b": third})
    passes(tmp_path, "svd", shape, f"[a] y = {text}", tensors, is_corrected and (lambda: drawn(6)))


CONV = "[a] y = Conv <pads=[1,1,1,1]> (x, w, b)"
TENSORS = {"w": drawn(6, 4, 3, 3), "b": drawn(6)}
SHAPE = (1, 4, 9, 8)


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_passes(tmp_path, form):
    passes(tmp_path, form, SHAPE, CONV, TENSORS, dtype=np.float16)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_products_of_other_dtypes_pass(tmp_path, dtype):
    text, weight, third, shape, _ = PRODUCTS["Gemm bias"]
    passes(tmp_path, "svd", shape, f"[a] y = {text}", {"w": weight, "b": third}, dtype=dtype)


@pytest.mark.parametrize("form", FORMS)
def test_models_of_ir_3_pass(tmp_path, form):
    passes(tmp_path, form, SHAPE, CONV, TENSORS, ir=3, opset=8)


@pytest.mark.parametrize("form", FORMS)
def test_weights_beside_the_file_pass(tmp_path, form):
    reference = beside(tmp_path)
    candidate = write(reference, tmp_path / "c.onnx", {"a": form})
    assert (tmp_path / "c.onnx.data").is_file()
    assert verify(reference, candidate)[0] == 0


def test_a_flipped_weight_beside_the_file_is_located(tmp_path):
    reference = beside(tmp_path)
    candidate = edited(write(reference, tmp_path / "c.onnx", {"a": "cp4"}), flip("v"))
    code, text = verify(reference, candidate)
    assert code == 1
    assert "tensor 'v', read by 'next', is not the reference's" in text


def beside(folder):
    """A model whose weights all lie in another file."""
    tensors = TENSORS | {"v": drawn(2, 6, 3, 3)}
    made = onnx.load(model(folder / "m.onnx", f"{CONV} [next] q = Conv (y, v)", tensors))
    where = {"save_as_external_data": True, "location": "weights", "size_threshold": 0}
    onnx.save(made, folder / "e.onnx", **where)
    return folder / "e.onnx"


def test_a_weight_behind_constant_and_identity_may_go(tmp_path):
    values = ", ".join(f"{v:.4f}" for v in drawn(6, 4, 1, 1).ravel())
    stored = f"k = Constant <value = float[6,4,1,1] {{{values}}}> () w = Identity (k)"
    passes(tmp_path, "svd", SHAPE, f"{stored} [a] y = Conv (x, w)", {})


def test_a_second_rewrite_passes_against_both_models_it_was_made_of(tmp_path):
    reference = reference_model(tmp_path)
    first = write(reference, tmp_path / "c.onnx", {"a": "cp4"})
    second = write(first, tmp_path / "d.onnx", {"b": "cp3"})
    for before, chains in ((reference, 2), (first, 1)):
        code, text = verify(before, second)
        assert (code, text.startswith(f"surgery: {chains} chain")) == (0, True), text


def test_a_chained_model_passes_against_itself(tmp_path):
    candidate = write(reference_model(tmp_path), tmp_path / "c.onnx", {"a": "cp4"})
    code, text = verify(candidate, candidate, "--rtol", 0, "--atol", 0)
    assert (code, text.endswith("passed")) == (0, True)


def test_a_model_of_others_is_not_checked_for_surgery(tmp_path):
    reference = reference_model(tmp_path)
    code, text = verify(reference, reference)
    assert code == 0
    assert "surgery: not checked: not written by onnxcp" in text


def test_the_kernels_error_is_reported(tmp_path):
    """Random factors stand for a kernel that has little to do with the original."""
    reference = model(tmp_path / "m.onnx", CONV, TENSORS)
    candidate = write(reference, tmp_path / "c.onnx", {"a": "cp4"})
    weights = [
        onnx.numpy_helper.to_array(tensor(onnx.load(candidate), f"a/cp/{role}.weight"))
        for role in ("inputs", "vertical", "horizontal", "outputs")
    ]
    first, tall, flat, last = (w.astype(np.float64) for w in weights)
    kernel = np.einsum(
        "tr,ry,rx,rs->tsyx", last[..., 0, 0], tall[:, 0, :, 0], flat[:, 0, 0], first[..., 0, 0]
    )
    stored = TENSORS["w"].astype(np.float32)
    wanted = np.linalg.norm(kernel - stored) / np.linalg.norm(stored)
    assert f" {wanted:.4f} " in verify(reference, candidate)[1]


# --- what is wrong is found

NODES = """
    [first] h = Conv <pads=[1,1,1,1]> (x, v, c)
    [act] r = local.Act (h)
    [a] k = Conv <strides=[2,1], pads=[1,1,1,1]> (r, w, b)
    [b] m = Conv <pads=[1,1,1,1], group=2> (k, u)
    [cond] n = If (always) <
        then_branch = t () => (float[N,4,e,f] p) { [inner] p = Conv (m, i) },
        else_branch = e () => (float[N,4,e,f] q) { q = Identity (m) }
    >
    [pool] o = GlobalAveragePool (n)
    [flat] f = Flatten (o)
    [head] y = Gemm <transB=1> (f, g, d)
    [last] z = Gemm <transB=1> (f, g2, d)
"""
FUNCTION = """<domain: "local", opset_import: ["" : 13]>
Act (i) => (o) { s = Constant <value_float = 0.1> () l = Mul (i, s) o = Max (i, l) }"""
STORED = {
    "v": drawn(4, 4, 3, 3),
    "c": drawn(4),
    "w": drawn(4, 4, 3, 3),
    "b": drawn(4),
    "u": drawn(4, 2, 3, 3),
    "i": drawn(4, 4, 1, 1),
    "g": drawn(8, 4),
    "g2": drawn(8, 4),
    "d": drawn(8),
    "always": np.array(True),
}
REPLACED = {"a": "cp4", "b": "cp3", "last": "svd"}


def reference_model(folder):
    outputs = "float[N,4,9,8] x) => (float[N,8] y, float[N,8] z"
    path = model(folder / "m.onnx", NODES, STORED, outputs, functions=FUNCTION)

    def more(proto):
        proto.metadata_props.add(key="author", value="someone")

    return edited(path, more)


def flip(name):
    """The lowest bit but ten of one weight's sign: a change that outputs hardly show."""

    def change(values):
        values.ravel()[values.size // 2] *= 1 + 2**-10
        return values

    return lambda proto: change_values(proto, name, change)


def swap(one, two):
    """Two stages in the other order: both read and write what the other one did."""

    def change(proto):
        first, second = node(proto, f"a/cp/{one}"), node(proto, f"a/cp/{two}")
        reading, between, writing = first.input[0], first.output[0], second.output[0]
        second.input[0], second.output[0] = reading, between
        first.input[0], first.output[0] = between, writing
        nodes = list(proto.graph.node)
        i, k = nodes.index(first), nodes.index(second)
        nodes[i], nodes[k] = nodes[k], nodes[i]
        copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
        del proto.graph.node[:]
        proto.graph.node.extend(copies)

    return change


def swap_weights(one, two):
    def change(proto):
        first, second = node(proto, f"a/cp/{one}"), node(proto, f"a/cp/{two}")
        first.input[1], second.input[1] = second.input[1], first.input[1]

    return change


def attribute(name, field, numbers):
    def change(proto):
        found = next(a for a in node(proto, name).attribute if a.name == field)
        if isinstance(numbers, int):
            found.i = numbers
        else:
            found.ints[:] = numbers

    return change


def without_stage(name):
    """A stage taken out: the next one reads what it read."""

    def change(proto):
        gone = node(proto, name)
        for other in proto.graph.node:
            for place, read in enumerate(other.input):
                if read == gone.output[0]:
                    other.input[place] = gone.input[0]
        proto.graph.initializer.remove(tensor(proto, gone.input[1]))
        proto.graph.node.remove(gone)

    return change


def restored(reference, site, *tensors):
    """The original's node back in place of its chain."""

    def change(proto):
        source = onnx.load(reference)
        chain = [n for n in proto.graph.node if n.name.startswith(f"{site}/cp/")]
        at = list(proto.graph.node).index(chain[0])
        for gone in chain:
            proto.graph.initializer.remove(tensor(proto, gone.input[1]))
            proto.graph.node.remove(gone)
        proto.graph.node.insert(at, node(source, site))
        proto.graph.initializer.extend(tensor(source, name) for name in tensors)

    return change


def metadata(key, value):
    def change(proto):
        entry = next(p for p in proto.metadata_props if p.key == key)
        if value is None:
            proto.metadata_props.remove(entry)
        else:
            entry.value = value

    return change


def reversed_outputs(proto):
    kept = [onnx.ValueInfoProto.FromString(o.SerializeToString()) for o in proto.graph.output]
    del proto.graph.output[:]
    proto.graph.output.extend(reversed(kept))


def other_function(proto):
    proto.functions[0].node[0].attribute[0].f = 0.2


def bent_branch(proto):
    inner = node(proto, "cond").attribute[0].g.node[0]
    inner.op_type, inner.input[1] = "Add", "always2"
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1), "always2"))


def another_bias(proto):
    node(proto, "a/cp/outputs").input[2] = "c"


def no_bias(proto):
    del node(proto, "a/cp/outputs").input[2]


def other_activation(proto):
    node(proto, "pool").op_type = "GlobalMaxPool"


def unused_node(proto):
    made = onnx.helper.make_node("Relu", ["m"], ["nowhere"], "idle")
    proto.graph.node.insert(len(proto.graph.node), made)


def stray_stage(proto):
    made = onnx.helper.make_node("Conv", ["m", "a/cp/inputs.weight"], ["nowhere"], "a/cp/stray")
    proto.graph.node.append(made)


def newer(proto):
    proto.ir_version += 1


def opset(proto):
    proto.opset_import.add(domain="ai.onnx.ml", version=3)


def author(proto):
    next(p for p in proto.metadata_props if p.key == "author").value = "someone else"


NAMED = {name: f"{site}: the weights of stage {role!r}" for name, site, role in (
    ("a/cp/inputs.weight", "a", "inputs"),
    ("a/cp/vertical.weight", "a", "vertical"),
    ("a/cp/horizontal.weight", "a", "horizontal"),
    ("a/cp/outputs.weight", "a", "outputs"),
    ("b/cp/window.weight", "b", "window"),
    ("last/cp/outputs.weight", "last", "outputs"),
)}  # fmt: skip
UNTOUCHED = {
    "v": "tensor 'v', read by 'first', is not the reference's",
    "c": "tensor 'c', read by 'first', is not",
    "b": "tensor 'b', read by 'a', is not",
    "g": "tensor 'g', read by 'head', is not",
    "i": "tensor 'i' is not the reference's",
}
FAULTS = {
    "two stages swapped": (swap("vertical", "horizontal"), "a: its stages are inputs, horizontal"),
    "the weights of two stages swapped": (
        swap_weights("inputs", "outputs"),
        "a: the weights of stage 'inputs' are not those that were written",
    ),
    "stages of unlike channels swapped": (swap("inputs", "vertical"), "a: its stages are vertical"),
    "a wrong stride": (
        attribute("a/cp/vertical", "strides", [1, 1]),
        "a: its strides are 1×1, not 2×1",
    ),
    "a stride on a pointwise stage": (
        attribute("b/cp/inputs", "strides", [2, 2]),
        "b: stages 'inputs' and 'window' move along the same dimension",
    ),
    "wrong pads": (
        attribute("a/cp/horizontal", "pads", [0, 2, 0, 0]),
        "a: its pads are 1×2×1×0, not 1×1×1×1",
    ),
    "a wrong dilation": (attribute("b/cp/window", "dilations", [1, 2]), "b: its dilations"),
    "other groups": (attribute("b/cp/inputs", "group", 1), "b: "),
    "a stage missing": (without_stage("a/cp/vertical"), "a: its kernel is 4×4×1×3, not 4×4×3×3"),
    "another bias": (another_bias, "a: the weights of stage 'outputs'"),
    "no bias": (no_bias, "a: the bias 'b' is not added"),
    "another operator": (other_activation, "node 'pool' is a GlobalMaxPool, not"),
    "another attribute": (attribute("first", "pads", [1, 1, 1, 0]), "'first' has another pads"),
    "another function": (other_function, "functions is not the reference's"),
    "a branch of an If bent": (bent_branch, "node 'cond' has another then_branch"),
    "a node too many": (unused_node, "node 'idle' is neither the reference's nor part"),
    "a stage too many": (stray_stage, "node 'a/cp/stray' is part of no chain"),
    "outputs in another order": (reversed_outputs, "outputs come in another order: z, y instead"),
    "another opset": (opset, "opset_import is not the reference's"),
    "another IR version": (newer, "ir_version is not the reference's"),
    "other metadata": (author, "the model's metadata"),
    "metadata of another source": (
        metadata("onnxcp.source_sha256", "f" * 64),
        "the candidate was made of another model, with sha256 ffffffffffff…",
    ),
    "no record of the chains": (
        metadata("onnxcp.chains", None),
        "the metadata onnxcp.chains are missing or damaged",
    ),
    "a damaged record": (metadata("onnxcp.chains", '{"a": 3}'), "missing or damaged"),
    "a record without a chain": (metadata("onnxcp.chains", "{}"), "a: the metadata know nothing"),
    "no list of the chains": (metadata("onnxcp.sites", None), "node 'a/cp/inputs' is neither"),
    "a weight of another shape": (
        lambda proto: tensor(proto, "a/cp/vertical.weight").dims.__setitem__(0, 2),
        "a: 'a/cp/vertical' has no stored weight of numbers",
    ),
    "a weight of another type": (
        lambda proto: setattr(tensor(proto, "a/cp/vertical.weight"), "data_type", 16),
        "a: 'a/cp/vertical' has no stored weight of numbers",
    ),
    "a chain that is not listed": (metadata("onnxcp.sites", "b\nlast"), "node 'a/cp/inputs'"),
    "a listed chain that is not there": (
        metadata("onnxcp.sites", "a\nb\nlast\nother"),
        "other: by the metadata it was replaced, but its chain is not there",
    ),
}  # fmt: skip


def found_in(folder, change, bias=None):
    reference = reference_model(folder)
    candidate = write(reference, folder / "c.onnx", REPLACED, bias=bias)
    edited(candidate, change)
    code, text = verify(reference, candidate)
    assert code == 1, text
    assert "passed" not in text
    return text


@pytest.mark.parametrize("name", NAMED)
def test_a_flipped_weight_in_a_chain_is_located(tmp_path, name):
    text = found_in(tmp_path, flip(name))
    assert f"{NAMED[name]} are not those that were written" in text
    assert text.count("FAILED") == 1


@pytest.mark.parametrize("name", UNTOUCHED)
def test_a_flipped_weight_in_an_untouched_node_is_located(tmp_path, name):
    text = found_in(tmp_path, flip(name))
    assert UNTOUCHED[name] in text
    assert text.count("FAILED") == 1


def test_a_flipped_bias_of_a_chain_is_located(tmp_path):
    text = found_in(tmp_path, flip("a/cp/outputs.bias"), {"a": drawn(4)})
    assert "a: the weights of stage 'outputs'" in text


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(tmp_path, fault):
    change, words = FAULTS[fault]
    assert words in found_in(tmp_path, change)


@pytest.mark.parametrize(("site", "gone"), [("a", ["w"]), ("b", ["u"]), ("last", ["g2"])])
def test_a_chain_removed_is_named(tmp_path, site, gone):
    text = found_in(tmp_path, restored(tmp_path / "m.onnx", site, *gone))
    assert f"{site}: by the metadata it was replaced, but its chain is not there" in text


@pytest.mark.parametrize("name", ["g", "last/cp/outputs.weight"])
def test_channels_of_the_last_layer_permuted_are_found(tmp_path, name):
    """Stored as [T, S] by the one and as [S, T] by the other."""
    place, words = (0, "read by 'head'") if name == "g" else (1, "last: the weights of stage")
    text = found_in(tmp_path, lambda proto: change_values(proto, name, lambda v: np.flip(v, place)))
    assert words in text


def test_metadata_of_another_model_are_found(tmp_path):
    other = model(tmp_path / "o.onnx", "[q] y = Conv (x, w)", {"w": drawn(6, 4, 3, 3)})
    theirs = onnx.load(write(other, tmp_path / "p.onnx", {"q": "cp4"})).metadata_props

    def change(proto):
        del proto.metadata_props[:]
        proto.metadata_props.extend(theirs)

    text = found_in(tmp_path, change)
    assert "the candidate was made of another model" in text
    assert "q: by the metadata it was replaced, but its chain is not there" in text
    assert "node 'a/cp/inputs' is neither the reference's nor part of a chain" in text


def test_a_chain_that_does_not_compute_its_kernel_is_named(tmp_path, monkeypatch):
    """As a runtime would that computes wrongly: here the kernel it is held against is bent."""
    right = recompose.kernel
    monkeypatch.setattr(recompose, "kernel", lambda chain: right(chain) * 1.01)
    text = found_in(tmp_path, lambda proto: None)
    assert "a: tensor 'k' is not what the chains stand for: relative L2 error 0.0" in text


def test_a_fault_that_keeps_the_model_from_running_is_named_too(tmp_path):
    text = found_in(tmp_path, attribute("a/cp/inputs", "pads", [-9, 0, -9, 0]))
    assert "a: " in text
