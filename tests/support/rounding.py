"""How far two computations of the same sums may be apart, on any machine.

A sum of n products of rounded numbers, in any order and with or without fused steps, differs
from the exact one by at most γₙ·Σ|aᵢ||bᵢ|, with γₙ = n·u/(1 − n·u) and u half the distance
from one to the next number. Sums of sums add up their lengths. Source: Higham, Accuracy and
Stability of Numerical Algorithms, 2002, chapters 3.1 and 4.2.
"""

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator


def assert_same_sums(one, other, magnitude, terms):
    """Two roundings of the same numbers, of which `magnitude` is what they are with the absolute
    values of all that goes in; `terms` is the number of roundings on the longest way."""
    rounded = terms * np.finfo(one.dtype).eps / 2
    assert one.shape == other.shape
    apart = np.abs(one.astype(np.float64) - other)
    np.testing.assert_array_less(apart, 2 * rounded / (1 - rounded) * magnitude + 1e-300)


def magnitude(proto, feeds):
    """The first output of a graph of sums, products, Relu and means, in double precision, with
    the absolute values of inputs and weights."""
    absolute = onnx.ModelProto()
    absolute.CopyFrom(proto)
    for value in (*absolute.graph.input, *absolute.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    for stored in absolute.graph.initializer:
        values = onnx.numpy_helper.to_array(stored)
        if values.dtype.kind == "f":
            values = np.abs(values.astype(np.float64))
            stored.CopyFrom(onnx.numpy_helper.from_array(values, stored.name))
    given = {name: np.abs(x.astype(np.float64)) for name, x in feeds.items()}
    return ReferenceEvaluator(absolute).run(None, given)[0]
