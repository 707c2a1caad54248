"""Every kind of convolution and of product that a chain can replace."""

import numpy as np

from onnxcp.chain import Chain, pointwise

RANK = 3

# attributes, weight [T, S / group, *window], groups, image
CONVOLUTIONS = {
    "1-D": ("pads=[1,2]", (6, 4, 3), 1, (9,)),
    "1-D strided": ("strides=[3], pads=[0,1]", (6, 4, 4), 1, (13,)),
    "1-D dilated": ("dilations=[2], pads=[4,0]", (6, 4, 5), 1, (11,)),
    "1-D same": ('auto_pad="SAME_LOWER", strides=[2]', (6, 4, 4), 1, (10,)),
    "1-D groups": ("group=2, pads=[1,1]", (6, 2, 3), 2, (9,)),
    "2-D groups": ("group=3, strides=[2,1], pads=[1,0,2,1]", (6, 4, 3, 3), 3, (9, 8)),
    "2-D groups dilated": ("group=2, dilations=[1,2], pads=[0,2,0,2]", (4, 3, 2, 3), 2, (6, 7)),
    "one output a group": ("group=4", (4, 2, 3, 3), 4, (6, 6)),
    "3-D": ("pads=[1,0,2,1,1,0]", (6, 4, 3, 2, 3), 1, (6, 5, 7)),
    "3-D strided": ("strides=[2,1,3], dilations=[1,2,1]", (6, 4, 2, 3, 3), 1, (6, 7, 8)),
    "3-D same": ('auto_pad="SAME_UPPER", strides=[2,2,2]', (5, 4, 3, 3, 3), 1, (6, 7, 5)),
    "3-D groups": ("group=2, pads=[1,1,1,1,1,1]", (6, 2, 3, 3, 3), 2, (4, 5, 6)),
}


def matrices(outputs: int, inputs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """[T, R] and [R, S]."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((outputs, RANK)), rng.standard_normal((RANK, inputs))


BIAS = np.arange(6.0) - 2
LEFT, RIGHT = matrices(6, 4)
WEIGHT = LEFT @ RIGHT  # [T, S]
TWO: Chain = (pointwise("inputs", RIGHT, 0), pointwise("outputs", LEFT, 0))
ROWS = np.random.default_rng(3).standard_normal((3, 6))

# node, weight as stored, third input, shape of x, the nodes that take its place
PRODUCTS = {
    "MatMul": ("MatMul (x, w)", WEIGHT.T, None, (3, 4), ["MatMul", "MatMul"]),
    "MatMul of a row": ("MatMul (x, w)", WEIGHT.T, None, (4,), ["MatMul", "MatMul"]),
    "MatMul of sequences": ("MatMul (x, w)", WEIGHT.T, None, (2, 3, 5, 4), ["MatMul", "MatMul"]),
    "Gemm": ("Gemm (x, w)", WEIGHT.T, None, (3, 4), ["MatMul", "Gemm"]),
    "Gemm bias": ("Gemm (x, w, b)", WEIGHT.T, BIAS, (3, 4), ["MatMul", "Gemm"]),
    "Gemm bias row": ("Gemm (x, w, b)", WEIGHT.T, BIAS[None], (3, 4), ["MatMul", "Gemm"]),
    "Gemm bias number": ("Gemm (x, w, b)", WEIGHT.T, np.array(2.0), (3, 4), ["MatMul", "Gemm"]),
    "Gemm bias column": ("Gemm (x, w, b)", WEIGHT.T, ROWS[:, :1], (3, 4), ["MatMul", "Gemm"]),
    "Gemm rows": ("Gemm (x, w, b)", WEIGHT.T, ROWS, (3, 4), ["MatMul", "Gemm"]),
    "Gemm transB": ("Gemm <transB=1> (x, w, b)", WEIGHT, BIAS, (3, 4), ["MatMul", "Gemm"]),
}
