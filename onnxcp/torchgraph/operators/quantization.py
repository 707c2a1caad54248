"""Quantization to 8 bits: the ONNX operators, and rounding that gradients pass through.

`FakeQuantize` and `FakeQuantizeWeight` are not of ONNX but of `training.fake_quant`: float values
rounded as by quantization to 8 bits. Gradients ignore the rounding, and are zero for clipped
values (Jacob et al. 2018, arXiv:1712.05877).
"""

import torch
from torch import Tensor

from onnxcp.torchgraph.node import TYPES, Node

TINY = torch.finfo(torch.float32).tiny  # a smaller scale counts as 1, as in ONNX Runtime


def quantize_linear(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """x / scale, rounded, plus the zero point, limited to the range of the integer type."""
    output_dtype = node.get("output_dtype", 0)
    dtype = zero.dtype if zero is not None else TYPES[output_dtype] if output_dtype else torch.uint8
    limits = torch.iinfo(dtype)
    steps = torch.round(x / _along(node, scale, x))
    if zero is not None:
        steps = steps + _along(node, zero, x)
    return steps.clamp(limits.min, limits.max).to(dtype)


def dequantize_linear(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """(x − zero point)·scale."""
    steps, output_dtype = x.to(torch.int32), node.get("output_dtype", 0)
    if zero is not None:
        steps = steps - _along(node, zero, x)
    y = steps.to(scale.dtype) * _along(node, scale, x)
    return y.to(TYPES[output_dtype]) if output_dtype else y


def _along(node: Node, values: Tensor, x: Tensor) -> Tensor:
    """Values per tensor, channel or block of an axis, in a shape that broadcasts to `x`."""
    values, axis = values.to(x.device), node.get("axis", 1)
    block = node.get("block_size", 0)
    if block:
        return values.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    if values.numel() == 1:
        return values.reshape(())
    sizes = [1] * x.ndim
    sizes[axis] = -1
    return values.reshape(sizes)


def fake_quantize(node: Node, x: Tensor) -> Tensor:
    """An activation rounded with a fixed scale and zero point."""
    scale, zero = node.get("scale", 1.0), node.get("zero_point", 0)
    low, high = node.get("low", 0), node.get("high", 255)
    return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, low, high)


def fake_quantize_weight(node: Node, weight: Tensor) -> Tensor:
    """A weight rounded with the scale that ONNX Runtime's quantizer chooses for its values.

    It divides by the scale as ONNX Runtime does; PyTorch's own function multiplies by the inverse,
    and rounds some large values differently.
    """
    low, high = node.get("low", -127), node.get("high", 127)
    with torch.no_grad():
        scale, zero = steps(weight, node.get("axis", None), low, high)
        limits = torch.iinfo(torch.int8 if low < 0 else torch.uint8)
        numbers = (torch.round(weight / scale) + zero).clamp(limits.min, limits.max)
        rounded = (numbers - zero) * scale
    return rounded + (weight - weight.detach())  # adds 0, with the gradient of the weight


def steps(weight: Tensor, axis: int | None, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Scale and zero point for integers from `low` to `high`.

    With an axis they are per channel and symmetric; without one they are for the whole weight,
    and symmetric if `low` is negative.
    """
    dims = [d for d in range(weight.ndim) if axis is None or d != axis % weight.ndim]
    values = weight.double()
    least, most = values.amin(dims, keepdim=True), values.amax(dims, keepdim=True)
    least, most = least.clamp_max(0), most.clamp_min(0)
    is_symmetric = axis is not None or low < 0
    if is_symmetric:
        most = torch.maximum(-least, most)
        least = -most
    scale = (most - least) / (high - low)
    scale = torch.where(scale < TINY, 1.0, scale)
    middle = torch.full_like(scale, (low + high) / 2)
    zero = (middle if is_symmetric else low - least / scale).round()
    return scale.float(), zero.float()
