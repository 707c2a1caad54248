"""Preparation of a float model for int8: opset with per-channel scales, folded, unique names.

BatchNormalization is folded by ONNX Runtime's basic optimizations; every other node keeps its
name, except for the suffix `FUSED`.
"""

from collections import Counter

import onnx

from onnxcp.errors import ModelError
from onnxcp.graph.operators import is_known, operator
from onnxcp.graph.sites import node_names
from onnxcp.quantization.precision import OPSET, opset_of
from onnxcp.runtime.ort import SILENT, runtime
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import as_our_error
from onnxcp.storage import temporary

IR = 7  # the first with opset 13
FUSED = "/MatMulAddFusion"  # what the runtime puts behind the name of a MatMul with its Add


def folded(proto: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """A folded copy of a model, with unique node names.

    Raises:
        ModelError: ONNX cannot raise its opset, or ONNX Runtime refuses it.
    """
    made = _raised(proto, where)
    name_nodes(made.graph)
    return _optimized(made, where)


def _raised(proto: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """A copy at an opset with per-channel scales; initializers are not inputs, so they fold."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    if opset_of(proto) < OPSET:
        made = _converted(made, where)
    made.ir_version = max(made.ir_version, IR)
    unlist(made.graph)
    return made


def _converted(proto: onnx.ModelProto, where: str) -> onnx.ModelProto:
    unknown = next((n for n in proto.graph.node if not is_known(n)), None)
    try:
        made: onnx.ModelProto = onnx.version_converter.convert_version(proto, OPSET)
    except Exception as error:  # its own type in some versions, RuntimeError in others
        cause = f"it does not know {operator(unknown)}" if unknown else " ".join(str(error).split())
        raise ModelError(
            f"{where}: ONNX cannot raise its opset to {OPSET}: {cause}; export the model anew"
        ) from error
    return made


def unlist(graph: onnx.GraphProto) -> None:
    """Remove initializers from the graph's inputs, in place."""
    stored = {t.name for t in graph.initializer}
    for place in [i for i, v in enumerate(graph.input) if v.name in stored][::-1]:
        del graph.input[place]


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a unique name, in place: converters identify nodes by name."""
    for node, name in zip(graph.node, node_names(graph), strict=True):
        node.name = name


def _optimized(made: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """The model after ONNX Runtime's basic optimizations.

    They fold BatchNormalization and constants, and only use operators of the ONNX standard.
    """
    ort = runtime()
    with temporary.folder() as folder:
        options, path = ort.SessionOptions(), folder / "folded.onnx"
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.log_severity_level, options.intra_op_num_threads = SILENT, 1
        target = Target.named("cpu", 1)
        with as_our_error(f"loading {where}", target):
            serialized = made.SerializeToString()
            ort.InferenceSession(serialized, options, providers=[target.provider.ort_name])
        return _with_row_biases(onnx.load(str(path)))


def _with_row_biases(made: onnx.ModelProto) -> onnx.ModelProto:
    """Store biases of Gemm as [N] instead of [1, N], with which the quantizer fails."""
    readers = Counter(name for node in made.graph.node for name in node.input)
    single = {n.input[2] for n in made.graph.node if operator(n) == "Gemm" and len(n.input) > 2}
    for tensor in made.graph.initializer:
        is_row = len(tensor.dims) == 2 and tensor.dims[0] == 1
        if is_row and tensor.name in single and readers[tensor.name] == 1:
            del tensor.dims[0]
    return made
