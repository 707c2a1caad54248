"""Models of a few nodes."""

from collections.abc import Sequence

import numpy as np
import onnx

from onnxcp.chain import Chain
from onnxcp.graph.chains import chain_nodes


def chain_model(chain: Chain, shape: Sequence[int], dtype: np.dtype, op: str = "Conv") -> bytes:
    """A serialized model that runs one chain in place of an `op` on an input `x` of the given
    shape: N×S×H×W for a convolution of images."""
    made = chain_nodes(chain, "chain", "x", "y", dtype, op)
    kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    image = onnx.helper.make_tensor_value_info("x", kind, list(shape))
    result = onnx.helper.make_tensor_value_info("y", kind, [None] * len(shape))
    graph = onnx.helper.make_graph(made.nodes, "chain", [image], [result], made.initializers)
    opset = onnx.helper.make_opsetid("", 13)
    serialized: bytes = onnx.helper.make_model(
        graph, ir_version=8, opset_imports=[opset]
    ).SerializeToString()
    return serialized
