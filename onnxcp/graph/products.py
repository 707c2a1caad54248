"""Matrix products as convolutions without a window: which of them are one, and how.

A product y = x·W + C reads rows of S numbers and writes rows of T. Its kernel is Wᵀ [T, S],
whichever way round the model stores it.
"""

import numpy as np
import onnx

from onnxcp.chain import Kernel
from onnxcp.graph.constants import Constants
from onnxcp.graph.operators import operator

PRODUCTS = ("Gemm", "MatMul")
PLAIN = {"alpha": 1.0, "beta": 1.0, "transA": 0, "broadcast": 0}  # the last up to opset 6


def is_product(node: onnx.NodeProto, constants: Constants) -> bool:
    """Whether a node multiplies by a stored tensor, or by one that is stored in integers."""
    return operator(node) in PRODUCTS and any(
        constants.find(name) is not None or constants.is_quantized(name) for name in node.input[:2]
    )


def stored_first(node: onnx.NodeProto, constants: Constants) -> bool:
    """Whether a product's first factor is stored: its rows are no samples."""
    return operator(node) in PRODUCTS and constants.find(node.input[0]) is not None


def unfit(node: onnx.NodeProto, constants: Constants) -> tuple[str, str] | None:
    """Why a product with a stored tensor is no convolution: a row of `LEFT_ALONE`, a detail."""
    if stored_first(node, constants):
        return "first", ""
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if not has_bias(node):
        given.pop("beta", None)  # it scales what is not there
    for name, plain in PLAIN.items():
        if operator(node) == "Gemm" and given.get(name, plain) != plain:
            return "scaled", f"{name}={given[name]:g}"
    return None


def has_bias(node: onnx.NodeProto) -> bool:
    """Whether a convolution or product has a third input, optional in both."""
    return len(node.input) > 2 and bool(node.input[2])


def is_transposed(node: onnx.NodeProto) -> bool:
    """Whether the stored matrix is [S, T], the kernel the other way round."""
    return operator(node) in PRODUCTS and not any(
        a.name == "transB" and a.i for a in node.attribute
    )


def as_kernel(node: onnx.NodeProto, stored: np.ndarray) -> Kernel:
    """The kernel [T, S, *window] of a convolution or product from its stored weight."""
    return stored.T if is_transposed(node) else stored


def as_bias(values: np.ndarray, outputs: int) -> np.ndarray | None:
    """A stored third input as a bias [T]; None where it differs from row to row."""
    last = values.shape[-1] if values.ndim else 1
    if values.size != last or last not in (1, outputs):
        return None
    return np.broadcast_to(values.ravel(), (outputs,))
