"""The table of operators, and the computation of a node by its row.

A row is a function `(node, *inputs) -> outputs`; an omitted input is None. Opsets 7 to 28 of ONNX
are covered; functions check `node.opset` where they differ. Integers are computed on the device
they are on, which is the CPU for shapes and stored integers. To add an operator, write a function
and add a row; the node tests of the ONNX standard then test it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxcp.errors import ModelError
from onnxcp.torchgraph.node import Node
from onnxcp.torchgraph.operators import (
    activations,
    convolution,
    elementwise,
    legacy,
    normalization,
    pooling,
    quantization,
    recurrent,
    reductions,
    resize,
    shaping,
)
from onnxcp.torchgraph.operators.elementwise import pairwise, plain
from onnxcp.torchgraph.operators.reductions import over_axes

Operator = Callable[..., Any]  # (node, *inputs) -> a tensor or a tuple of tensors

OPERATORS: dict[str, Operator] = {
    "Abs": plain(torch.abs),
    "Acos": plain(torch.acos),
    "Acosh": plain(torch.acosh),
    "Add": plain(torch.add),
    "And": plain(torch.logical_and),
    "ArgMax": reductions.arg_max,
    "ArgMin": reductions.arg_min,
    "Asin": plain(torch.asin),
    "Asinh": plain(torch.asinh),
    "Atan": plain(torch.atan),
    "Atanh": plain(torch.atanh),
    "AveragePool": pooling.average_pool,
    "BatchNormalization": normalization.batch_norm,
    "Cast": elementwise.cast,
    "CastLike": plain(elementwise.cast_like),
    "Ceil": plain(torch.ceil),
    "Celu": activations.celu,
    "Clip": elementwise.clip,
    "Concat": shaping.concat,
    "ConstantOfShape": shaping.constant_of_shape,
    "Conv": convolution.conv,
    "ConvTranspose": convolution.conv_transpose,
    "Cos": plain(torch.cos),
    "Cosh": plain(torch.cosh),
    "DepthToSpace": shaping.depth_to_space,
    "DequantizeLinear": quantization.dequantize_linear,
    "Div": plain(elementwise.div),
    "Dropout": elementwise.dropout,
    "Elu": activations.elu,
    "Equal": plain(torch.eq),
    "Erf": plain(torch.erf),
    "Exp": plain(torch.exp),
    "Expand": plain(shaping.expand),
    "Flatten": shaping.flatten,
    "Floor": plain(torch.floor),
    "Gather": shaping.gather,
    "GatherElements": shaping.gather_elements,
    "Gelu": activations.gelu,
    "Gemm": convolution.gemm,
    "GlobalAveragePool": plain(pooling.global_average_pool),
    "GlobalLpPool": pooling.global_lp_pool,
    "GlobalMaxPool": plain(pooling.global_max_pool),
    "Greater": plain(torch.gt),
    "GreaterOrEqual": plain(torch.ge),
    "GroupNormalization": normalization.group_norm,
    "HardSigmoid": activations.hard_sigmoid,
    "HardSwish": plain(functional.hardswish),
    "Identity": plain(lambda x: x),
    "InstanceNormalization": normalization.instance_norm,
    "IsInf": elementwise.is_inf,
    "IsNaN": plain(torch.isnan),
    "LRN": normalization.lrn,
    "LSTM": recurrent.lstm,
    "LayerNormalization": normalization.layer_norm,
    "LeakyRelu": activations.leaky_relu,
    "Less": plain(torch.lt),
    "LessOrEqual": plain(torch.le),
    "Log": plain(torch.log),
    "LogSoftmax": activations.log_softmax,
    "LpNormalization": normalization.lp_norm,
    "LpPool": pooling.lp_pool,
    "MatMul": plain(torch.matmul),
    "Max": pairwise(torch.maximum),
    "MaxPool": pooling.max_pool,
    "Mean": plain(elementwise.mean),
    "MeanVarianceNormalization": normalization.mean_variance,
    "Min": pairwise(torch.minimum),
    "Mish": plain(functional.mish),
    "Mod": elementwise.mod,
    "Mul": plain(torch.mul),
    "Neg": plain(torch.neg),
    "Not": plain(torch.logical_not),
    "Or": plain(torch.logical_or),
    "PRelu": plain(activations.prelu),
    "Pad": shaping.pad,
    "Pow": plain(elementwise.power),
    "QuantizeLinear": quantization.quantize_linear,
    "RMSNormalization": normalization.rms_norm,
    "Range": plain(shaping.arange),
    "Reciprocal": plain(torch.reciprocal),
    "ReduceL1": over_axes(reductions.l1),
    "ReduceL2": over_axes(reductions.l2),
    "ReduceLogSum": over_axes(reductions.log_sum),
    "ReduceLogSumExp": over_axes(reductions.log_sum_exp),
    "ReduceMax": over_axes(reductions.largest),
    "ReduceMean": over_axes(reductions.mean),
    "ReduceMin": over_axes(reductions.smallest),
    "ReduceProd": over_axes(reductions.product),
    "ReduceSum": over_axes(reductions.total),
    "ReduceSumSquare": over_axes(reductions.sum_square),
    "Relu": plain(torch.relu),
    "Reshape": shaping.reshape,
    "Resize": resize.resize,
    "Round": plain(torch.round),  # halves to even, as in ONNX
    "Selu": activations.selu,
    "Shape": shaping.shape,
    "Shrink": activations.shrink,
    "Sigmoid": plain(torch.sigmoid),
    "Sign": plain(torch.sign),
    "Sin": plain(torch.sin),
    "Sinh": plain(torch.sinh),
    "Size": plain(shaping.size),
    "Slice": shaping.slice_,
    "Softmax": activations.softmax,
    "Softplus": plain(activations.softplus),
    "Softsign": plain(functional.softsign),
    "SpaceToDepth": shaping.space_to_depth,
    "Split": shaping.split,
    "Sqrt": plain(torch.sqrt),
    "Squeeze": shaping.squeeze,
    "Sub": plain(torch.sub),
    "Sum": pairwise(torch.add),
    "Swish": activations.swish,
    "Tan": plain(torch.tan),
    "Tanh": plain(torch.tanh),
    "ThresholdedRelu": activations.thresholded_relu,
    "Tile": plain(shaping.tile),
    "TopK": reductions.top_k,
    "Transpose": shaping.transpose,
    "Unsqueeze": shaping.unsqueeze,
    "Upsample": resize.upsample,
    "Where": plain(torch.where),
    "Xor": plain(torch.logical_xor),
    "Affine": legacy.affine,
    "Crop": legacy.crop,
    "ImageScaler": legacy.image_scaler,
    "ParametricSoftplus": legacy.parametric_softplus,
    "ScaledTanh": legacy.scaled_tanh,
    "com.microsoft.Gelu": activations.gelu,
    "com.microsoft.QuickGelu": activations.quick_gelu,
    "onnxcp.FakeQuantize": quantization.fake_quantize,
    "onnxcp.FakeQuantizeWeight": quantization.fake_quantize_weight,
}

NUMBERS = {  # indices of inputs that are read as Python numbers, and so stay on the CPU
    "DequantizeLinear": (1, 2),
    "Dropout": (1, 2),
    "Pad": (1, 2, 3),
    "QuantizeLinear": (1, 2),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "TopK": (1,),
    "Upsample": (1,),
}
SHAPED = ("Reshape", "Slice", "Squeeze", "Unsqueeze", "Tile", "Expand", "Split")
HALVES = (torch.float16, torch.bfloat16)
SETS_TYPE = ("Cast", "CastLike")  # results have the requested type


def numbers(node: Node) -> tuple[int, ...]:
    """Indices of the inputs that are read as Python numbers."""
    if node.op in NUMBERS:
        return NUMBERS[node.op]
    is_shaped = node.op in SHAPED or node.op.startswith("Reduce")
    return (1, 2, 3, 4) if is_shaped else (0,) * (node.op == "ConstantOfShape")


def compute(node: Node, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """A node's outputs; an omitted input is None.

    Raises:
        ModelError: the node cannot compute these inputs.
        torch.cuda.OutOfMemoryError: the GPU has too little memory.
    """
    operator = OPERATORS[node.op]
    try:
        result = operator(node, *_widened(node, together(node, inputs)))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        shapes = ", ".join("none" if t is None else str(tuple(t.shape)) for t in inputs)
        raise ModelError(
            f"{node.where}: PyTorch fails: {str(error).splitlines()[0]} (inputs {shapes}); check "
            "that the model takes these inputs"
        ) from error
    outputs = result if isinstance(result, tuple) else (result,)
    return tuple(_narrowed(node, inputs, y) for y in outputs)


def together(node: Node, inputs: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Inputs on one device: those on the CPU move to the GPU of the others, except numbers."""
    gpus = [t.device for t in inputs if t is not None and t.device.type != "cpu"]
    if not gpus:
        return list(inputs)
    stay = numbers(node)
    return [t if t is None or i in stay else t.to(gpus[0]) for i, t in enumerate(inputs)]


def _half(node: Node, inputs: Sequence[Tensor | None]) -> torch.dtype | None:
    """The half-precision type to compute in single precision, as ONNX Runtime does on the CPU."""
    if node.op in SETS_TYPE:
        return None
    halves = (t for t in inputs if t is not None and t.dtype in HALVES and t.device.type == "cpu")
    return next((t.dtype for t in halves), None)


def _widened(node: Node, inputs: Sequence[Tensor | None]) -> list[Tensor | None]:
    if _half(node, inputs) is None:
        return list(inputs)
    return [t.float() if t is not None and t.dtype in HALVES else t for t in inputs]


def _narrowed(node: Node, inputs: Sequence[Tensor | None], y: Tensor) -> Tensor:
    half = _half(node, inputs)
    return y if half is None or y.dtype != torch.float32 else y.to(half)
