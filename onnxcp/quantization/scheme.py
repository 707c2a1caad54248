"""The int8 scheme: types, ranges, and nodes that stay in float."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass

from onnxcp.errors import UsageError
from onnxcp.runtime.machine import cpu_flags

TYPES = ("uint8", "int8")
METHODS = ("minmax", "percentile", "mse")
X86 = ("x86_64", "AMD64", "i686", "x86")
DOT_PRODUCTS = {"avx512_vnni", "avx_vnni"}  # add 8-bit products without saturation


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a model is quantized.

    `method` chooses ranges of activations: "minmax" keeps all values, "percentile" so many
    percent of them, "mse" what changes them least. 99.999 % moved outputs the least on ResNet-18,
    -20 and -56 with chains, as little as "mse"; at 99.9 % the square of that is 3 to 11 times as
    large.

    `reduce_range` gives weights 7 bits, for CPUs whose sums of 8-bit products saturate. `floats`
    are globs of nodes left in float.

    `equalise` scales the inner channels of chains before, which leaves the float model as it is;
    `correct_bias` takes from biases what rounding of weights shifts means by, and gives one to
    each Conv and Gemm that has none.

    Raises:
        UsageError: a type, method or percentile that there is not.
    """

    activations: str = "uint8"
    weights: str = "int8"
    per_channel: bool = True
    reduce_range: bool = False
    method: str = "percentile"
    percentile: float = 99.999
    floats: tuple[str, ...] = ()
    equalise: bool = True
    correct_bias: bool = True

    def __post_init__(self) -> None:
        for what, value, known in (
            ("activations", self.activations, TYPES),
            ("weights", self.weights, TYPES),
            ("method", self.method, METHODS),
        ):
            if value not in known:
                raise UsageError(f"int8: {what} {value!r} unknown; give {' or '.join(known)}")
        if (self.activations, self.weights) == ("int8", "uint8"):
            raise UsageError(
                "int8: signed activations with unsigned weights have no kernels; "
                "give unsigned activations or signed weights"
            )
        if not 50 < self.percentile <= 100:
            raise UsageError(f"int8: percentile {self.percentile}: give more than 50, at most 100")


def fastest(
    floats: Sequence[str] = (), machine: str | None = None, flags: frozenset[str] | None = None
) -> Scheme:
    """The types that are fastest and safe with the CPU provider, by default on this machine.

    On x86, activations are unsigned: signed ones were measured 3 times slower. Elsewhere they are
    signed, as ONNX Runtime's documentation recommends. `machine` is a name as Python reports it.
    """
    if (machine or platform.machine()) not in X86:
        return Scheme(activations="int8", floats=tuple(floats))
    found = cpu_flags() if flags is None else flags
    return Scheme(reduce_range=not DOT_PRODUCTS & found, floats=tuple(floats))
