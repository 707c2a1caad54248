"""Int8 that this machine's kernels add up exactly, for tests that compare what is computed.

x86 CPUs without dot products of bytes add pairs of products, unsigned activation × signed weight,
in 16 bits, which saturate: 2 · 255 · 127 does not fit, 2 · 255 · 64 does. Signed activations or
unsigned weights take other kernels, which add in 32 bits everywhere.
"""

from dataclasses import replace

import numpy as np

from onnxcp.quantization.scheme import Scheme, fastest

SATURATES = fastest().reduce_range


def exact(scheme: Scheme | None = None) -> Scheme:
    """The scheme, by default the plain one, with weights of 7 bits where 8 would saturate."""
    scheme = scheme or Scheme()
    mixed = (scheme.activations, scheme.weights) == ("uint8", "int8")
    return replace(scheme, reduce_range=scheme.reduce_range or (SATURATES and mixed))


def weight_range(kind: type[np.integer]) -> tuple[int, int]:
    """The least and greatest stored weight of a type that unsigned activations go well with."""
    if kind == np.int8 and SATURATES:
        return -64, 64
    limits = np.iinfo(kind)
    return int(limits.min), int(limits.max)
