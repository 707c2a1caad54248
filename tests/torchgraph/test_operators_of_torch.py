"""Every operator that torch computes here, against oracles that share no code with it: the
standard's own test cases, and ONNX Runtime over the opsets and attributes those leave out."""

import functools
import warnings
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch")

from onnxcp.torchgraph.module import Network
from onnxcp.torchgraph.operators.table import OPERATORS
from onnxcp.torchgraph.support import unsupported

EXCEPTIONS = {  # cases of the standard that are covered in words and not computed
    **dict.fromkeys(
        (
            "test_training_dropout",
            "test_training_dropout_default",
            "test_training_dropout_default_mask",
            "test_training_dropout_mask",
            "test_training_dropout_zero_ratio",
            "test_training_dropout_zero_ratio_mask",
        ),
        "whether dropout is random is an input, which is fed",
    ),
    **dict.fromkeys(
        (
            "test_reduce_max_empty_set",
            "test_reduce_max_empty_set_bool",
            "test_reduce_min_empty_set",
        ),
        "torch finds no largest of nothing, and no layer of a CNN asks for it",
    ),
    **dict.fromkeys(
        (
            "test_resize_downsample_scales_linear_align_corners",
            "test_resize_downsample_scales_cubic_align_corners",
        ),
        "ONNX Runtime takes the new size as whole, the reference does not",
    ),
}
NO_CASES = {  # operators the standard has no case for in a form that is covered
    *(
        "Affine",
        "Crop",
        "ImageScaler",
        "ParametricSoftplus",
        "ScaledTanh",
        "GlobalLpPool",
        "QuickGelu",
    ),
    "Not",  # its cases are of opset 1,
    *("FakeQuantize", "FakeQuantizeWeight"),  # ours: see test_simulation
}
HALF = 1e-3  # a few units in the last place of float16


@functools.cache
def standard_cases() -> dict[str, list[Any]]:
    """The standard's cases that are covered, by operator; expanded functions as "several"."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        every = collect_testcases(None)
    found = defaultdict(list)
    for case in every:
        if not unsupported(case.model):
            nodes = case.model.graph.node
            found[nodes[0].op_type if len(nodes) == 1 else "several"].append(case)
    return found


def as_array(value):
    if isinstance(value, onnx.TensorProto):
        value = onnx.numpy_helper.to_array(value)
    return np.asarray(value)


def as_tensor(array):
    if array.dtype.name == "bfloat16":  # which torch does not take from numpy
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(array.copy())


def as_numbers(tensor):
    return tensor.detach().to(torch.float32 if tensor.dtype == torch.bfloat16 else tensor.dtype)


def differences(case):
    """What differs from a case's own outputs; empty where nothing does."""
    network = Network(case.model)
    for fed, wanted in case.data_sets:
        names = [i.name for i in case.model.graph.input]
        feeds = {n: as_tensor(as_array(a)) for n, a in zip(names, fed, strict=False)}
        made = network({n: t for n, t in feeds.items() if n in network.inputs})
        for tensor, array in zip(made, map(as_array, wanted), strict=True):
            if str(tensor.dtype).removeprefix("torch.") != array.dtype.name:
                yield f"{case.name}: {tensor.dtype}, not {array.dtype}"
            small = array.dtype.itemsize == 2
            limits = {"rtol": 1e-2 if small else case.rtol, "atol": HALF if small else 1e-5}
            if array.dtype.name == "bfloat16":
                array, limits = array.astype(np.float32), {"rtol": 2e-2, "atol": 2e-2}
            try:
                np.testing.assert_allclose(as_numbers(tensor).numpy(), array, **limits)
            except AssertionError as error:
                yield f"{case.name}: {error}"


@pytest.mark.parametrize("op", [*sorted({op.rpartition(".")[2] for op in OPERATORS}), "several"])
def test_the_standards_own_cases_hold(op):
    cases = [c for c in standard_cases()[op] if c.name not in EXCEPTIONS]
    wrong = [text for case in cases for text in differences(case)]
    assert not wrong, "\n".join(wrong)
    assert cases or op in NO_CASES


@dataclass(frozen=True)
class Case:
    """One node. A tuple among the inputs is the shape of a drawn tensor, an array is stored
    in the model, and None is left out."""

    op: str
    opset: int
    inputs: tuple[Any, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1

    def __str__(self):
        listed = ",".join(f"{k}={v}" for k, v in self.attributes.items())
        return f"{self.op}-{self.opset} {listed}".replace(" ", "")


X1, X2, X3 = (2, 4, 11), (2, 4, 9, 8), (1, 2, 6, 7, 5)
SAME = ("SAME_UPPER", "SAME_LOWER", "VALID")


def ints(*values):
    return np.array(values, np.int64)


def floats(*values):
    return np.array(values, np.float32)


def pools():
    """Windows of every pooling, before and after attributes were added."""
    plain = {"kernel_shape": [3, 2], "strides": [2, 3]}
    for op, opset in (("MaxPool", 8), ("MaxPool", 12), ("AveragePool", 7), ("AveragePool", 11)):
        yield Case(op, opset, (X2,), plain | {"pads": [1, 0, 2, 1]})
        for auto in SAME:
            yield Case(op, opset, (X2,), plain | {"auto_pad": auto})
        yield Case(op, opset, (X1,), {"kernel_shape": [3], "pads": [2, 0]})
        yield Case(op, opset, (X3,), {"kernel_shape": [2, 3, 2], "pads": [0, 1, 0, 1, 1, 1]})
    for op in ("MaxPool", "AveragePool"):
        for stride in (1, 2, 3, 4):  # where a window of ceil_mode starts in the padding too
            more = {"kernel_shape": [2, 3], "strides": [stride] * 2, "ceil_mode": 1}
            yield Case(op, 12, (X2,), more)
            yield Case(op, 12, (X2,), more | {"pads": [1, 1, 1, 1]})
            yield Case(op, 12, (X2,), more | {"pads": [0, 1, 1, 0]})
    counted = {"count_include_pad": 1, "kernel_shape": [3, 3], "strides": [2, 2]}
    yield Case("AveragePool", 11, (X2,), counted | {"pads": [1, 0, 2, 1]})
    yield Case("AveragePool", 11, (X2,), counted | {"auto_pad": "SAME_LOWER"})
    yield Case("AveragePool", 19, (X2,), counted | {"pads": [1, 1, 1, 1], "ceil_mode": 1})
    yield Case("MaxPool", 12, (X2,), {"kernel_shape": [2, 3], "dilations": [3, 2]})
    yield Case("MaxPool", 12, (X2,), {"kernel_shape": [2, 2], "pads": [1] * 4, "dilations": [2, 3]})
    yield Case("AveragePool", 19, (X2,), {"kernel_shape": [2, 3], "dilations": [3, 2]})
    for p in (1, 2, 3):
        yield Case("LpPool", 11, (X2,), {"kernel_shape": [2, 3], "pads": [1, 0, 0, 2], "p": p})
        yield Case("GlobalLpPool", 7, (X2,), {"p": p})
    yield from (Case(op, 7, (X3,)) for op in ("GlobalMaxPool", "GlobalAveragePool"))


def convolutions():
    for opset in (7, 11, 22):
        yield Case("Conv", opset, (X2, (6, 4, 3, 2), (6,)), {"pads": [1, 0, 2, 3]})
    for auto in SAME:
        for strides in ([1, 1], [2, 3], [3, 2]):
            yield Case("Conv", 11, (X2, (6, 4, 3, 4)), {"auto_pad": auto, "strides": strides})
    yield Case("Conv", 11, (X2, (8, 2, 3, 3), (8,)), {"group": 2, "dilations": [2, 1]})
    yield Case("Conv", 11, (X2, (4, 1, 3, 3)), {"group": 4, "pads": [1] * 4, "strides": [2, 2]})
    yield Case("Conv", 11, (X1, (3, 4, 3), (3,)), {"pads": [2, 1], "dilations": [2]})
    yield Case("Conv", 11, (X3, (3, 2, 3, 2, 1), (3,)), {"pads": [1, 0, 0, 1, 1, 0]})
    kernel = (4, 3, 3, 2)
    up = {"strides": [2, 3]}
    for opset in (7, 11, 22):
        yield Case("ConvTranspose", opset, (X2, kernel, (3,)), up | {"pads": [1, 0, 0, 1]})
    yield Case("ConvTranspose", 11, (X2, kernel), up | {"output_padding": [1, 2]})
    more = {"output_padding": [1, 2], "pads": [0, 1, 0, 1]}
    yield Case("ConvTranspose", 11, (X2, kernel, (3,)), up | more)
    yield Case("ConvTranspose", 11, (X2, (4, 2, 3, 3), (4,)), {"group": 2, "dilations": [2, 2]})
    yield Case("ConvTranspose", 11, (X1, (4, 3, 4)), {"strides": [3], "pads": [1, 2]})
    yield Case("ConvTranspose", 11, (X3, (2, 3, 2, 2, 2)), {"strides": [2, 1, 2]})
    for auto in ("NOTSET", *SAME):
        for sizes in ([18, 24], [17, 23], [20, 25]):
            yield Case(
                "ConvTranspose", 11, (X2, kernel), up | {"auto_pad": auto, "output_shape": sizes}
            )
    yield from (Case("ConvTranspose", 11, (X2, kernel), up | {"auto_pad": a}) for a in SAME)
    yield Case("Gemm", 7, ((3, 4), (4, 5), (5,)), {"alpha": 0.5, "beta": 2.0})
    yield Case("Gemm", 11, ((4, 3), (5, 4)), {"transA": 1, "transB": 1})
    yield Case("Gemm", 13, ((3, 4), (4, 5), (3, 1)))
    yield Case("MatMul", 9, ((2, 3, 4), (4, 5)))


def resizes():
    nearest = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    modes = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    up, down = floats(1, 1, 2.0, 2.6), floats(1, 1, 0.6, 0.8)
    for mode in ("nearest", "linear"):
        yield Case("Upsample", 7, (X2,), {"mode": mode, "scales": [1.0, 1.0, 2.0, 3.0]})
        yield Case("Upsample", 9, (X2, floats(1, 1, 2, 1.5)), {"mode": mode})
        yield from (Case("Resize", 10, (X2, scales), {"mode": mode}) for scales in (up, down))
    for transformation in modes:
        how = {"coordinate_transformation_mode": transformation}
        for scales in (up, down):
            for mode in ("linear", "cubic"):
                yield Case("Resize", 11, (X2, floats(), scales), how | {"mode": mode})
            for rounding in nearest:
                given = how | {"mode": "nearest", "nearest_mode": rounding}
                yield Case("Resize", 13, (X2, None, scales), given)
        for sizes in (ints(2, 4, 18, 16), ints(2, 4, 5, 1), ints(2, 4, 13, 20)):
            for mode in ("nearest", "linear", "cubic"):
                yield Case("Resize", 13, (X2, None, None, sizes), how | {"mode": mode})
    cubic = {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1}
    yield from (Case("Resize", 11, (X2, floats(), scales), cubic) for scales in (up, down))
    crop = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 7.0}
    roi = floats(0, 0, 0.2, -0.3, 1, 1, 0.7, 1.2)
    for mode in ("nearest", "linear"):
        yield Case("Resize", 13, (X2, roi, None, ints(2, 4, 5, 6)), crop | {"mode": mode})
    for mode in ("linear", "cubic"):
        yield Case("Resize", 18, (X2, None, down), {"mode": mode, "antialias": 1})
    for policy in ("not_larger", "not_smaller"):
        given = {"keep_aspect_ratio_policy": policy, "axes": [2, 3], "mode": "linear"}
        yield Case("Resize", 18, (X2, None, None, ints(12, 16)), given)
    yield Case("Resize", 13, (X3, None, floats(1, 1, 2, 1.5, 0.5)), {"mode": "linear"})


def shapes():
    """Attributes that became inputs, and what those add."""
    for mode in ("constant", "reflect", "edge"):
        yield Case("Pad", 7, (X2,), {"pads": [0, 0, 2, 1, 0, 0, 3, 0], "mode": mode})
        yield Case("Pad", 11, (X2, ints(0, 0, 2, 1, 0, 0, 3, 0)), {"mode": mode})
        yield Case("Pad", 18, (X2, ints(2, 1, 3, 0), None, ints(-2, -1)), {"mode": mode})
        yield Case("Pad", 13, (X2, ints(0, 0, -2, 1, 0, 0, 3, -1)), {"mode": mode})
    yield Case("Pad", 8, (X2,), {"pads": [0, 1, 2, 1, 1, 0, 3, 0], "value": 2.5})
    yield Case("Pad", 13, (X2, ints(0, 1, 2, 1, 1, 0, 3, 0), np.float32(2.5)))
    yield Case("Pad", 19, (X2, ints(0, 0, 11, 3, 0, 0, 2, 9)), {"mode": "wrap"})
    yield Case("Slice", 7, (X2,), {"starts": [1, -4], "ends": [9, 99], "axes": [2, 3]})
    yield Case("Slice", 9, (X2,), {"starts": [0, 1], "ends": [-1, 3]})
    stepped = ints(-1, 2), ints(-99, 7), ints(2, -1), ints(-2, 3)
    yield Case("Slice", 10, (X2, *stepped))
    yield Case("Slice", 13, (X2, ints(7, 0), ints(-(2**63), 2**63 - 1), ints(2, 3), ints(-3, 2)))
    yield Case("Slice", 13, (X2, ints(5), ints(5), ints(2)))
    yield Case("Split", 7, ((6, 4),), {"split": [1, 3, 2]}, 3)
    yield Case("Split", 11, ((6, 4),), {"axis": -1}, 2)
    yield Case("Split", 13, ((6, 4), ints(5, 1)), {}, 2)
    yield Case("Split", 18, ((7, 4),), {"num_outputs": 3}, 3)
    for opset in (7, 11):
        yield Case("Squeeze", opset, ((1, 3, 1, 2),), {"axes": [0, 2]})
        yield Case("Unsqueeze", opset, ((3, 2),), {"axes": [0, 3]})
    yield Case("Squeeze", 11, ((1, 3, 1, 2),))
    yield Case("Squeeze", 13, ((1, 3, 1, 2), ints(-2)))
    yield Case("Unsqueeze", 13, ((3, 2), ints(-1, 0)))
    yield Case("Reshape", 7, (X2, ints(0, -1, 4)))
    yield Case("Reshape", 14, ((0, 3, 4), ints(3, 0, 4)), {"allowzero": 1})
    yield from (Case("Flatten", opset, (X2,), {"axis": 2}) for opset in (7, 9, 13))
    yield Case("Flatten", 13, (X2,), {"axis": -1})
    yield Case("Flatten", 13, (X2,), {"axis": 0})
    yield Case("Expand", 8, ((3, 1), ints(2, 1, 6)))
    yield Case("Tile", 7, ((3, 2), ints(2, 3)))
    yield Case("Concat", 7, ((3, 2), (3, 4)), {"axis": 1})
    yield Case("Gather", 7, (X2, np.array([[0, 2], [3, 1]])), {"axis": 1})
    yield Case("Gather", 11, (X2, np.array(-1)), {"axis": -2})
    yield Case("GatherElements", 11, ((3, 2), np.array([[0, -1], [2, 1]])))
    for mode in ("DCR", "CRD"):
        yield Case("DepthToSpace", 11, ((1, 8, 3, 2),), {"blocksize": 2, "mode": mode})
    yield Case("DepthToSpace", 7, ((1, 8, 3, 2),), {"blocksize": 2})
    yield Case("SpaceToDepth", 7, ((1, 2, 4, 6),), {"blocksize": 2})
    yield Case("Transpose", 7, (X2,))
    yield Case("Shape", 15, (X2,), {"start": -3, "end": -1})
    yield Case("Size", 7, (X2,))
    yield from (Case("TopK", opset, ((3, 7), ints(3)), {"axis": 0}, 2) for opset in (10, 11))
    yield Case("TopK", 7, ((3, 7),), {"k": 4}, 2)
    yield Case("TopK", 11, ((3, 7), ints(3)), {"largest": 0}, 2)
    yield Case("ArgMax", 7, (X2,), {"axis": 1, "keepdims": 0})
    yield Case("ArgMax", 12, ((3, 4),), {"axis": -1, "select_last_index": 1})
    yield Case("Dropout", 7, (X2,), {"ratio": 0.4})
    yield Case("Dropout", 12, (X2,), {}, 2)
    yield Case("Dropout", 13, (X2, np.float32(0.4), np.array(False)))


REDUCTIONS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]


def reductions():
    for name in REDUCTIONS:
        for keep in (0, 1):
            yield Case(f"Reduce{name}", 11, (X2,), {"axes": [1, -1], "keepdims": keep})
            yield Case(f"Reduce{name}", 18, (X2, ints(1, -1)), {"keepdims": keep})
        yield Case(f"Reduce{name}", 7, (X2,), {"axes": [2]})
        yield Case(f"Reduce{name}", 13, (X2,))
        if name in ("Sum", "Max", "Mean"):
            yield Case(f"Reduce{name}", 18, (X2,), {"noop_with_empty_axes": 1})
    yield Case("ReduceSum", 13, (X2, ints(-2)), {"keepdims": 0})


def normalizations():
    four = ((4,), (4,), (4,), np.abs(np.linspace(0.5, 2, 4, dtype=np.float32)))
    for opset in (7, 9, 14, 15):
        yield Case("BatchNormalization", opset, (X2, *four), {"epsilon": 1e-3})
    yield Case("BatchNormalization", 15, ((3, 4), *four))
    yield Case("BatchNormalization", 15, (X1, *four))
    yield Case("InstanceNormalization", 7, (X2, (4,), (4,)), {"epsilon": 1e-3})
    yield Case("GroupNormalization", 21, (X2, (4,), (4,)), {"num_groups": 2})
    yield Case("LayerNormalization", 17, (X2, (9, 8), (9, 8)), {"axis": 2}, 3)
    yield Case("LayerNormalization", 17, (X2, (8,)))
    for size in (1, 3, 5):
        given = {"size": size, "alpha": 0.3, "beta": 0.6, "bias": 1.5}
        yield Case("LRN", 7, ((1, 6, 3, 4),), given)
    for p in (1, 2):
        yield Case("LpNormalization", 7, (X2,), {"axis": 1, "p": p})
    yield Case("MeanVarianceNormalization", 9, (X2,))
    for op in ("Softmax", "LogSoftmax"):
        yield Case(op, 7, (X2,))
        yield Case(op, 11, (X2,), {"axis": 2})
        yield Case(op, 11, (X2,), {"axis": -1})
        yield Case(op, 13, (X2,))
        yield Case(op, 13, (X2,), {"axis": 1})


def elementwise():
    for op in ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Elu", "Selu", "LeakyRelu"):
        yield Case(op, 7, (X2,))
    for op, given in (
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
        ("LeakyRelu", {"alpha": 0.2}),
        ("Elu", {"alpha": 1.5}),
        ("Selu", {"alpha": 1.5, "gamma": 1.2}),
    ):
        yield Case(op, 7, (X2,), given)
    yield Case("ThresholdedRelu", 10, (X2,), {"alpha": 0.4})
    yield Case("Celu", 12, (X2,), {"alpha": 1.7})
    yield Case("HardSwish", 14, (X2,))
    yield Case("Gelu", 20, (X2,), {"approximate": "tanh"})
    yield Case("Shrink", 9, (X2,), {"bias": 0.2, "lambd": 0.3})
    yield Case("PRelu", 7, (X2, (4, 1, 1)))
    yield Case("PRelu", 9, (X2, (1,)))
    yield Case("Clip", 7, (X2,), {"min": -0.2, "max": 0.5})
    yield Case("Clip", 7, (X2,))
    yield Case("Clip", 12, (X2, None, np.float32(0.3)))
    yield Case("Clip", 11, (X2, np.float32(0.3)))
    for op in ("Add", "Sub", "Mul", "Div"):
        yield Case(op, 7, (X2, (4, 1, 8)))
    yield Case("Div", 13, (ints(7, -7, 9, 0), ints(2, 2, -4, 3)))
    yield Case("Mod", 13, (ints(7, -7, 9, -3), ints(2, 4, -4, 3)))
    yield Case("Mod", 13, ((3, 4), (3, 4)), {"fmod": 1})
    yield Case("Pow", 12, (ints(2, 3), floats(2, 3)))
    for op in ("Max", "Min", "Sum", "Mean"):
        yield Case(op, 8, (X2, (4, 1, 8), (1,)))
    yield Case("Affine", 7, (X2,), {"alpha": 0.4, "beta": 1.5})
    yield Case("ScaledTanh", 7, (X2,), {"alpha": 0.4, "beta": 1.5})
    yield Case("ParametricSoftplus", 7, (X2,), {"alpha": 0.4, "beta": 1.5})
    yield Case("ImageScaler", 7, (X2,), {"scale": 0.4, "bias": [1.0, 2.0, 3.0, 4.0]})
    yield Case("Crop", 7, (X2,), {"border": [1, 2, 3, 0]})
    yield Case("Crop", 7, (X2,), {"border": [1, 2, 3, 0], "scale": [4, 3]})


def recurrences():
    """Inputs: time, batch, features; a hidden size of 3."""
    for direction, n in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
        given = {"hidden_size": 3, "direction": direction}
        for opset in (7, 14, 22):
            yield Case("LSTM", opset, ((5, 2, 4), (n, 12, 4), (n, 12, 3)), given, 3)
        more = (n, 24), None, (n, 2, 3), (n, 2, 3)
        yield Case("LSTM", 14, ((5, 2, 4), (n, 12, 4), (n, 12, 3), *more), given, 3)


def quantizations():
    """Halves of a step, numbers beyond the range, and zero points at its ends."""
    x = np.linspace(-3, 5, 2 * 4 * 9, dtype=np.float32).round(1).reshape(2, 4, 9)
    bytes_ = np.arange(-128, 128, dtype=np.int8).reshape(4, 8, 8)
    scale, each = np.float32(0.2), floats(0.1, 0.2, 0.03, 1.7)
    for opset in (10, 13, 19, 21, 23):
        yield Case("QuantizeLinear", opset, (x, scale))
        for zero in (np.uint8(0), np.uint8(255), np.int8(-128), np.int8(3)):
            yield Case("QuantizeLinear", opset, (x, scale, zero))
            steps = bytes_.view(zero.dtype)
            yield Case("DequantizeLinear", opset, (steps, scale, zero))
        yield Case("DequantizeLinear", opset, (bytes_, scale))
        yield Case("DequantizeLinear", opset, (1 + bytes_.astype(np.int32) << 23, scale))
    for zeros in (np.array([0, 128, 255, 7], np.uint8), np.array([0, -128, 127, 7], np.int8)):
        yield Case("QuantizeLinear", 13, (x, each, zeros))
        yield Case("QuantizeLinear", 13, (x, each[:2], zeros[:2]), {"axis": -3})
        yield Case("DequantizeLinear", 13, (bytes_.view(zeros.dtype), each, zeros), {"axis": 0})
        block = {"axis": 2, "block_size": 4}
        scales = np.linspace(0.1, 2, 2 * 4 * 3, dtype=np.float32).reshape(2, 4, 3)
        yield Case("QuantizeLinear", 21, (x, scales, np.resize(zeros, scales.shape)), block)
    yield Case("DequantizeLinear", 13, (bytes_.astype(np.int32), each), {"axis": -3})
    yield Case("QuantizeLinear", 21, (x, scale), {"output_dtype": onnx.TensorProto.INT8})


FAMILIES = (
    convolutions,
    pools,
    resizes,
    shapes,
    reductions,
    normalizations,
    elementwise,
    recurrences,
    quantizations,
)


def model(case, dtype=np.float32):
    """The first drawn input is fed, the others are stored."""
    rng = np.random.default_rng(0)
    drawn = [
        given if given is None else rng.uniform(-1, 1, given) if isinstance(given, tuple) else given
        for given in case.inputs
    ]
    positive = case.op in ("ReduceLogSum",)
    arrays = {
        f"i{k}": np.abs(a).astype(dtype)
        if positive and isinstance(case.inputs[k], tuple)
        else np.asarray(a).astype(dtype if np.asarray(a).dtype.kind == "f" else np.asarray(a).dtype)
        for k, a in enumerate(drawn)
        if a is not None
    }
    names = [f"i{k}" if a is not None else "" for k, a in enumerate(drawn)]
    made = [f"o{k}" for k in range(case.outputs)]
    node = onnx.helper.make_node(case.op, names, made, name="node", **case.attributes)
    kind = onnx.helper.np_dtype_to_tensor_dtype(arrays["i0"].dtype)
    fed = onnx.helper.make_tensor_value_info("i0", kind, list(arrays["i0"].shape))
    stored = [onnx.numpy_helper.from_array(a, n) for n, a in arrays.items() if n != "i0"]
    ends = [onnx.ValueInfoProto(name=name) for name in made]
    graph = onnx.helper.make_graph([node], "g", [fed], ends, stored)
    opset = [onnx.helper.make_opsetid("", case.opset)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), arrays["i0"]


def both(case, dtype=np.float32):
    """Outputs of ONNX Runtime and of torch."""
    proto, fed = model(case, dtype)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    made = Network(proto)({"i0": torch.from_numpy(fed.copy())})
    return session.run(None, {"i0": fed}), [t.detach().numpy() for t in made]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_what_the_standards_cases_leave_out_is_as_onnx_runtime_has_it(family):
    wrong = []
    for case in family():
        try:
            for wanted, got in zip(*both(case), strict=True):
                assert wanted.dtype == got.dtype
                np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-5)
        except Exception as error:
            wrong.append(f"{case}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("size", [2, 4])
def test_lrn_of_an_even_size_is_as_the_reference_has_it(size):
    from onnx.reference import ReferenceEvaluator

    # The reference goes over as many channels as there are samples.
    case = Case("LRN", 13, ((6, 6, 3, 4),), {"size": size, "alpha": 0.3, "bias": 1.5})
    proto, fed = model(case)
    (wanted,) = ReferenceEvaluator(proto).run(None, {"i0": fed})
    (made,) = Network(proto)({"i0": torch.from_numpy(fed)})
    np.testing.assert_allclose(made.numpy(), wanted, rtol=1e-5)


HALVES = (
    Case("Conv", 11, (X2, (6, 4, 3, 2), (6,)), {"pads": [1, 0, 2, 3]}),
    Case("BatchNormalization", 14, (X2, (4,), (4,), (4,), floats(1, 2, 3, 0.5))),
    Case("MaxPool", 12, (X2,), {"kernel_shape": [2, 2], "ceil_mode": 1}),
    Case("AveragePool", 11, (X2,), {"kernel_shape": [2, 3], "pads": [1, 0, 1, 0]}),
    Case("Gemm", 13, ((3, 4), (4, 5), (5,))),
    Case("Softmax", 13, (X2,)),
    Case("ReduceMean", 13, (X2,), {"axes": [2, 3]}),
)


@pytest.mark.parametrize("case", HALVES, ids=lambda case: case.op)
def test_halves_run_on_the_cpu_and_stay_halves(case):
    for wanted, got in zip(*both(case, np.float16), strict=True):
        assert wanted.dtype == got.dtype == np.float16
        np.testing.assert_allclose(got, wanted, rtol=4 * HALF, atol=HALF)


def test_every_exception_is_a_case_of_the_standard():
    names = {case.name for cases in standard_cases().values() for case in cases}
    assert set(EXCEPTIONS) <= names
