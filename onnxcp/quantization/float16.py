"""float16 conversion by ONNX Runtime's converter; inputs and outputs stay float32.

The converter leaves the operators of a list in float32, with casts around them. Three problems are
corrected here. Casts are at the end of the graph and duplicated per reader, so each is moved to its
place, once. Values of Constant nodes are rounded even if a node needs float32, so they become
initializers. Numbers too large for float16 are clipped to 65504, so nodes of the main graph that
read them stay in float32.

The result has its weights inside the model, even if they were external before.
"""

from collections.abc import Collection, Sequence

import numpy as np
import onnx
from onnx.inliner import inline_local_functions

from onnxcp.errors import ModelError
from onnxcp.graph import io
from onnxcp.graph.operators import operator
from onnxcp.quantization.fold import name_nodes, unlist
from onnxcp.quantization.precision import FLOAT32, precision_of, quantized_already
from onnxcp.runtime.ort import runtime
from onnxcp.runtime.providers import Target
from onnxcp.runtime.sessions import open_runner

LARGEST = float(np.finfo(np.float16).max)
IR = 4  # the first that keeps initializers apart from inputs


def halved(proto: onnx.ModelProto, *, where: str = "the model") -> onnx.ModelProto:
    """The float16 version of a float32 model, which is not changed.

    The same input gives the same bytes. `where` names the model in messages.

    Raises:
        ModelError: the model is quantized, not float32 or too large, or the converter fails.
    """
    _refuse_unfit(proto, where)
    ready = _prepared(proto)
    fed = [*ready.graph.input, *ready.graph.output]
    made = _by_runtime(ready, [value.name for value in fed], _beyond(ready), where)
    _put_in_place(made.graph, {node.name for node in ready.graph.node})
    del made.graph.value_info[:], made.graph.output[:]
    made.graph.output.extend(proto.graph.output)  # it fills in shapes
    try:
        open_runner(made.SerializeToString(), Target.named("cpu", 1))
    except ModelError as error:
        raise ModelError(
            f"{where}: in float16 it is no valid model: {error.text}; keep it in float32"
        ) from error
    return made


def _refuse_unfit(proto: onnx.ModelProto, where: str) -> None:
    kind = precision_of(proto)
    reason = quantized_already(proto) or (None if kind == FLOAT32 else f"a {kind} model")
    if reason is not None:
        raise ModelError(f"{where}: {reason}; float16 is made from float32: give such a model")
    if io.is_large(proto):
        raise ModelError(
            f"{where}: over 2 GiB, which ONNX Runtime's converter cannot take; keep it in float32"
        )


def _prepared(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without local functions, with unique node names, and all stored tensors as
    initializers that are not inputs."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    if made.functions:
        made = inline_local_functions(made)
    graph = made.graph
    name_nodes(graph)
    outputs = {output.name for output in graph.output}
    for place, node in reversed(list(enumerate(graph.node))):
        tensor = None if set(node.output) & outputs else _stored(node)
        if tensor is not None:
            graph.initializer.append(tensor)
            del graph.node[place]
    made.ir_version = max(made.ir_version, IR)
    unlist(graph)
    return made


def _stored(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The value of a Constant node of floats, under the name of its output."""
    if operator(node) != "Constant":
        return None
    (attribute,) = node.attribute
    made = onnx.TensorProto()
    if attribute.name == "value":
        made.CopyFrom(attribute.t)
    elif attribute.name in ("value_float", "value_floats"):
        values = attribute.f if attribute.name == "value_float" else attribute.floats
        made = onnx.numpy_helper.from_array(np.array(values, np.float32))
    made.name = node.output[0]
    return made if made.data_type == onnx.TensorProto.FLOAT else None


def _beyond(proto: onnx.ModelProto) -> list[str]:
    """Names of the nodes that read stored numbers too large for float16."""
    floats = (t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    large = {tensor.name for tensor in floats if _is_beyond(tensor)}
    return [node.name for node in proto.graph.node if large & set(node.input)]


def _is_beyond(tensor: onnx.TensorProto) -> bool:
    values = onnx.numpy_helper.to_array(tensor)
    return bool((np.abs(values[np.isfinite(values)]) > LARGEST).any())


def _by_runtime(
    ready: onnx.ModelProto, floats: Sequence[str], left: Sequence[str], where: str
) -> onnx.ModelProto:
    """The converter's result; tensors `floats` and nodes `left` stay float32."""
    runtime()  # says what to install where it is missing
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        made: onnx.ModelProto = convert_float_to_float16(
            ready, keep_io_types=list(floats), node_block_list=list(left)
        )
    except Exception as error:  # whatever it stumbles over
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"{where}: ONNX Runtime's float16 converter fails: {cause}; keep it in float32"
        ) from error
    return made


def _put_in_place(graph: onnx.GraphProto, own: Collection[str]) -> None:
    """Move every added cast, once, to just after the node it reads, else to the front."""
    casts = {node.output[0]: node for node in graph.node if node.name not in own}
    kept = [node for node in graph.node if node.name in own]
    given = {name for node in (*kept, *casts.values()) for name in node.output}
    readers = dict[str, list[onnx.NodeProto]]()
    for cast in casts.values():
        source = cast.input[0] if cast.input[0] in given else ""
        readers.setdefault(source, []).append(cast)
    ordered = list[onnx.NodeProto]()

    def put(node: onnx.NodeProto) -> None:
        ordered.append(node)
        for name in node.output:
            for cast in readers.get(name, []):
                put(cast)

    for node in (*readers.pop("", []), *kept):
        put(node)
    del graph.node[:]
    graph.node.extend(ordered)
