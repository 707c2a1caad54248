"""That the int8 which tests compare by is exact on this machine, at the worst of values."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from int8_machine import exact, weight_range

from onnxcp.quantization.scheme import Scheme

STEP, MIDDLE = 2**11, {"uint8": 128, "int8": 0}
TYPES = [("uint8", "int8"), ("uint8", "uint8"), ("int8", "int8")]


def products(activations, weights):
    """What the runtime's int8 convolution gives, in steps of STEP about MIDDLE."""
    kinds = activations.dtype, weights.dtype
    zero, kind = [k.type(0) for k in kinds], onnx.helper.np_dtype_to_tensor_dtype
    stored = {"w": weights, "one": np.float32(1), "step": np.float32(STEP)}
    stored |= {"zx": zero[0], "zw": zero[1], "zy": kinds[0].type(MIDDLE[kinds[0].name])}
    reads = ["x", "one", "zx", "w", "one", "zw", "step", "zy"]
    node = onnx.helper.make_node("QLinearConv", reads, ["y"])
    tensors = [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in stored.items()]
    ends = [onnx.helper.make_tensor_value_info(n, kind(kinds[0]), [None] * 4) for n in "xy"]
    graph = onnx.helper.make_graph([node], "sums", ends[:1], ends[1:], tensors)
    opsets = [onnx.helper.make_opsetid("", 13)]
    made = onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets)
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": activations})[0]


@pytest.mark.parametrize(("activations", "weights"), TYPES)
def test_the_greatest_products_do_not_saturate(activations, weights):
    x = np.full((1, 4, 3, 5), np.iinfo(activations).max, activations)
    ends = np.array(weight_range(np.dtype(weights).type), weights)  # rows of the least, greatest
    w = np.broadcast_to(np.resize(ends, (16, 1, 1, 1)), (16, 4, 1, 1))
    sums = np.einsum("nchw,kcij->nkhw", x.astype(int), w.astype(int))
    wanted = np.rint(sums / STEP).astype(int) + MIDDLE[activations]
    assert np.unique(wanted).size == 2  # nothing is clipped to the same
    np.testing.assert_array_equal(products(x, w), wanted)


def test_a_scheme_is_changed_in_nothing_but_the_bits_of_its_weights():
    scheme = Scheme(per_channel=False, percentile=99, floats=("a",))
    changed = exact(scheme)
    assert (changed.per_channel, changed.percentile, changed.floats) == (False, 99, ("a",))
    assert exact(Scheme(reduce_range=True)) == Scheme(reduce_range=True)
