"""Subnormal weights: numbers so near zero that many processors are many times slower with them.

Channels that training let die hold them. A chain without them is then faster for that alone,
and so is the model itself with zeros in their place, which computes the same to 1e-38.
"""

from pathlib import Path

import numpy as np
import onnx

from onnxcp.errors import ModelError
from onnxcp.graph.nested import graphs

FEW = 1e-3  # of a tensor's numbers, up to which they do not decide its time: a heuristic
KINDS = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.DOUBLE: np.float64}
REMEDY = (
    "store zeros in their place (weight[abs(weight) < 1.2e-38] = 0, before the export), or run the "
    "model with ONNX Runtime's session.set_denormal_as_zero=1: it computes the same, faster"
)


def shares(proto: onnx.ModelProto) -> dict[str, float]:
    """Of every stored weight in single or double precision that holds subnormal numbers, their
    share of its numbers."""
    found = dict[str, float]()
    for tensor in (t for graph in graphs(proto) for t in graph.initializer):
        if tensor.data_type in KINDS:
            values = np.abs(onnx.numpy_helper.to_array(tensor))
            count = np.count_nonzero((values > 0) & (values < np.finfo(values.dtype).tiny))
            if count:
                found[tensor.name] = float(count / values.size)
    return found


def note(proto: onnx.ModelProto) -> str | None:
    """What a user must know of a model's subnormal weights, and what to do; None where there
    are none worth a word."""
    many = {name: share for name, share in shares(proto).items() if share > FEW}
    if not many:
        return None
    name, share = max(many.items(), key=lambda item: item[1])
    more = f" and {len(many) - 1} more" if len(many) > 1 else ""
    return (
        f"{share:.1%} of the numbers of weight {name!r}{more} are subnormal (below 1.2e-38), with "
        f"which many processors compute many times slower; {REMEDY}"
    )


def refuse(path: Path, proto: onnx.ModelProto) -> None:
    """Raise ModelError for a model whose time would be that of its subnormal weights: what was
    gained by losing them would be called the merit of chains."""
    found = note(proto)
    if found is not None:
        raise ModelError(f"{path}: {found}. Then optimize it: chains are compared with that")
