"""One kernel decomposed, and put into a model, without a command."""

import numpy as np
import onnx
import onnxruntime
import pytest
from digits import MODEL

import onnxcp
from onnxcp.errors import DataError, ModelError, PlanError, UsageError

SITE, STRIDED = "block/conv1", "down/conv"


def weight(name, model=MODEL):
    proto = onnx.load(model)
    node = next(n for n in proto.graph.node if n.name == name)
    stored = {t.name: t for t in proto.graph.initializer}
    return onnx.numpy_helper.to_array(stored[node.input[1]])


def run(proto, feeds):
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def with_dense(kernel, name):
    """The model with another kernel in place of one, made without any of onnxcp's code."""
    proto = onnx.load(MODEL)
    node = next(n for n in proto.graph.node if n.name == name)
    stored = next(t for t in proto.graph.initializer if t.name == node.input[1])
    stored.CopyFrom(onnx.numpy_helper.from_array(kernel.astype(np.float32), stored.name))
    return proto


@pytest.fixture(scope="module")
def kernel():
    return weight(SITE)


@pytest.fixture(scope="module")
def made(kernel):
    return onnxcp.decompose(kernel, "cp3", 16, draft=True)


def test_a_decomposition_is_what_its_factors_make(kernel, made):
    outputs, inputs, window = made.factors
    dense = np.einsum("tr,sr,kr->tsk", outputs, inputs, window).reshape(kernel.shape)
    np.testing.assert_allclose(made.kernel, dense, rtol=1e-10, atol=1e-12)
    error = np.linalg.norm(kernel - dense) / np.linalg.norm(kernel)
    assert made.error == pytest.approx(error, rel=1e-5)
    assert 0 < made.error < 1


@pytest.mark.parametrize("form", ["cp3", "cp4", "tkd", "tucker2", "svd"])
def test_the_stages_of_every_form_compute_with_the_reconstructed_kernel(form):
    kernel = np.random.default_rng(0).standard_normal((6, 4, 3, 3))
    made = onnxcp.decompose(kernel, form, 4, draft=True)
    image = np.random.default_rng(1).standard_normal((1, 4, 7, 7)).astype(np.float32)
    x = onnx.helper.make_tensor_value_info("x", 1, image.shape)
    y = onnx.helper.make_tensor_value_info("y", 1, None)

    def model(stages):
        nodes, stored = [], []
        for number, (stage_weight, group) in enumerate(stages):
            stored.append(onnx.numpy_helper.from_array(np.float32(stage_weight), f"w{number}"))
            names = [f"t{number}", f"w{number}"]
            nodes.append(onnx.helper.make_node("Conv", names, [f"t{number + 1}"], group=group))
        nodes[0].input[0], nodes[-1].output[0] = "x", "y"
        graph = onnx.helper.make_graph(nodes, "g", [x], [y], stored)
        opset = [onnx.helper.make_opsetid("", 17)]
        return onnx.helper.make_model(graph, ir_version=8, opset_imports=opset)

    chained = run(model([(s.weight, s.group) for s in made.stages]), {"x": image})[0]
    dense = run(model([(made.kernel, 1)]), {"x": image})[0]
    np.testing.assert_allclose(chained, dense, rtol=1e-3, atol=1e-4)


def test_a_higher_rank_has_a_smaller_error(kernel, made):
    assert onnxcp.decompose(kernel, "cp3", 32, draft=True).error < made.error


def test_the_same_seed_gives_the_same_factors(kernel, made):
    again = onnxcp.decompose(kernel, "cp3", 16, draft=True)
    assert all(np.array_equal(a, b) for a, b in zip(again.factors, made.factors, strict=True))


def test_the_error_is_weighed_by_a_covariance_and_smaller_for_it(kernel):
    variances = np.where(np.arange(kernel.shape[1]) % 2, 1.0, 0.01)

    def lost(other):
        return float(np.sqrt((np.square(other).sum((0, 2, 3)) * variances).sum()))

    plain = onnxcp.decompose(kernel, "svd", 8)
    weighed = onnxcp.decompose(kernel, "svd", 8, covariance=np.diag(variances))
    assert lost(weighed.kernel - kernel) < lost(plain.kernel - kernel)
    assert weighed.error == pytest.approx(lost(weighed.kernel - kernel) / lost(kernel), rel=0.01)


def test_factors_of_groups_stand_behind_their_axis():
    kernel = np.random.default_rng(0).standard_normal((8, 2, 3, 3))
    made = onnxcp.decompose(kernel, "cp3", 8, group=4, draft=True)
    assert [factor.shape for factor in made.factors] == [(4, 2, 2), (4, 2, 2), (4, 9, 2)]
    assert made.kernel.shape == kernel.shape
    error = np.linalg.norm(made.kernel - kernel) / np.linalg.norm(kernel)
    assert made.error == pytest.approx(error, rel=1e-5)


@pytest.mark.parametrize(
    ("keywords", "named"),
    [
        ({"form": "cp9"}, "form='cp9': unknown"),
        ({"rank": 0}, "rank=0: must be 1 to"),
        ({"rank": 10**6}, "rank=1000000: must be 1 to"),
        ({"group": 3}, "group=3: does not divide"),
        ({"rank": "many"}, "rank='many': give a whole number"),
        ({"group": 2.5}, "group=2.5: give a whole number"),
        ({"stride": "ab"}, "stride='ab': give 2 whole numbers from 1"),
        ({"stride": 0}, "stride=0: give 2 whole numbers from 1"),
        ({"pads": (1, 1)}, r"pads=\(1, 1\): give 4 whole numbers from 0"),
        ({"covariance": np.eye(5)}, r"covariance: of shape \(5, 5\)"),
    ],
)
def test_a_wrong_keyword_is_named(kernel, keywords, named):
    with pytest.raises(UsageError, match=named):
        onnxcp.decompose(kernel, **{"form": "cp3", "rank": 4, **keywords})


def test_an_unknown_keyword_is_answered_with_the_nearest(kernel):
    with pytest.raises(TypeError, match="'strides'; did you mean 'stride'"):
        onnxcp.decompose(kernel, "cp3", 4, strides=2)


def test_a_form_that_takes_no_matrix_says_so():
    with pytest.raises(UsageError, match="form='cp3': a 1×1 kernel has no window"):
        onnxcp.decompose(np.ones((4, 4)), "cp3", 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_refused(kernel, bad):
    with pytest.raises(DataError, match="weight: holds NaN or infinity"):
        onnxcp.decompose(np.full_like(kernel, bad), "cp3", 4)


def test_a_weight_of_whole_numbers_is_refused():
    with pytest.raises(DataError, match="weight: of int64"):
        onnxcp.decompose(np.ones((4, 4, 3, 3), np.int64), "cp3", 4)


def test_a_replaced_node_computes_with_the_reconstructed_kernel(made):
    image = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype(np.float32)
    chained = run(onnxcp.replace(MODEL, {SITE: made}), {"input": image})[0]
    dense = run(with_dense(made.kernel, SITE), {"input": image})[0]
    np.testing.assert_allclose(chained, dense, rtol=1e-3, atol=1e-4)


def test_stages_of_a_strided_node_replace_it_as_the_decomposition_does():
    kernel = weight(STRIDED)
    made = onnxcp.decompose(kernel, "cp3", 8, stride=2, pads=1, draft=True)
    one, two = (onnxcp.replace(MODEL, {STRIDED: given}) for given in (made, made.stages))
    assert one.SerializeToString() == two.SerializeToString()


def test_stages_that_slide_otherwise_are_refused_with_what_the_node_needs():
    made = onnxcp.decompose(weight(STRIDED), "cp3", 8, draft=True)
    with pytest.raises(UsageError, match=r"down/conv: stage 'window' has strides \(1, 1\)"):
        onnxcp.replace(MODEL, {STRIDED: made.stages})


def test_a_decomposition_of_another_kernel_is_refused(made):
    with pytest.raises(UsageError, match="down/conv: its kernel is"):
        onnxcp.replace(MODEL, {STRIDED: made})


def test_only_the_node_is_replaced(made):
    before, after = onnx.load(MODEL), onnxcp.replace(MODEL, {SITE: made})
    kept = [n for n in after.graph.node if not n.name.startswith(f"{SITE}/cp/")]
    assert kept == [n for n in before.graph.node if n.name != SITE]


def test_a_model_in_memory_stays_as_it_was(made):
    proto = onnx.load(MODEL)
    before = proto.SerializeToString()
    onnxcp.replace(proto, {SITE: made})
    assert proto.SerializeToString() == before


def test_an_unknown_node_is_answered_with_the_nearest_name(made):
    with pytest.raises(PlanError, match="did you mean 'block/conv1'"):
        onnxcp.replace(MODEL, {"block/conv_1": made})


def test_a_node_that_cannot_be_replaced_comes_with_the_reason(made):
    replaced = onnxcp.replace(MODEL, {SITE: made})
    with pytest.raises(PlanError, match="part of a chain that an earlier run made"):
        onnxcp.replace(replaced, {f"{SITE}/cp/window": made})


def test_weights_that_the_type_of_the_model_cannot_hold_are_refused(kernel):
    stages = list(onnxcp.decompose(kernel, "cp3", 4, pads=1, draft=True).stages)
    stages[0].weight[0] = 1e300
    with pytest.raises(DataError, match="stage 'inputs' holds NaN or infinity in float32"):
        onnxcp.replace(MODEL, {SITE: stages})


def test_a_model_whose_values_lie_in_an_unknown_folder_is_refused(made, tmp_path):
    path = tmp_path / "outside.onnx"
    onnx.save(onnx.load(MODEL), path, save_as_external_data=True, size_threshold=0)
    proto = onnx.load(path, load_external_data=False)
    with pytest.raises(ModelError, match=r"model: the values of .* lie in a file"):
        onnxcp.replace(proto, {SITE: made})


def test_what_is_no_model_is_refused(made):
    with pytest.raises(UsageError, match="model: bytes is no model"):
        onnxcp.replace(b"model", {SITE: made})
