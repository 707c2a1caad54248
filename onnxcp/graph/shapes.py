"""Shapes of the tensors inside a graph, and the padding that follows from them."""

from collections.abc import Mapping

import numpy as np
import onnx

from onnxcp.chain import Geometry, Sizes
from onnxcp.errors import ModelError

Shapes = Mapping[str, tuple[int, ...]]

LARGE = 1 << 16  # bytes: a tensor below may be a shape that inference has to read
MOST = 1 << 31  # of a stride, a dilation or a padding: more is damage


def infer(proto: onnx.ModelProto, inputs: Shapes) -> dict[str, tuple[int, ...]]:
    """Concrete shapes of all tensors that ONNX shape inference can tell, given the inputs'.

    Works on a copy without the large weights, so that models of any size pass.

    Raises:
        ModelError: the model as a whole is damaged, as where it states no version of operators.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton(proto, inputs), data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise ModelError(
            f"{proto.graph.name or 'the graph'}: its shapes cannot be inferred: {error}; "
            "export the model again"
        ) from error
    known = {t.name: tuple(t.dims) for t in proto.graph.initializer}
    known |= {t.values.name: tuple(t.dims) for t in proto.graph.sparse_initializer}
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(d.dim_value > 0 for d in kind.shape.dim):
            known[value.name] = tuple(d.dim_value for d in kind.shape.dim)
    return known


def skeleton(proto: onnx.ModelProto, inputs: Shapes) -> onnx.ModelProto:
    """The model's graph alone, with fixed inputs, no stale shapes, and large weights as inputs."""
    graph = onnx.GraphProto(name=proto.graph.name or "graph")
    graph.node.extend(proto.graph.node)
    small = [t for t in proto.graph.initializer if len(t.raw_data) < LARGE]
    large = [t for t in proto.graph.initializer if len(t.raw_data) >= LARGE]
    graph.initializer.extend(small)
    stored = {t.name for t in proto.graph.initializer}
    for value in proto.graph.input:
        if value.name not in stored:
            kind = value.type.tensor_type.elem_type
            fixed = onnx.helper.make_tensor_value_info(value.name, kind, inputs.get(value.name))
            graph.input.append(fixed)
    graph.input.extend(
        onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in large
    )
    graph.input.extend(
        onnx.helper.make_tensor_value_info(t.values.name, t.values.data_type, t.dims)
        for t in proto.graph.sparse_initializer
    )
    graph.output.extend(onnx.ValueInfoProto(name=o.name) for o in proto.graph.output)
    skeleton = onnx.ModelProto(ir_version=max(proto.ir_version, 4), graph=graph)
    skeleton.opset_import.extend(proto.opset_import)
    skeleton.functions.extend(proto.functions)
    return skeleton


def element_type(data_type: int) -> np.dtype | None:
    """The numpy dtype of an ONNX element type; None for a type that is unknown."""
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(data_type))
    except (KeyError, TypeError):
        return None


def padded(node: onnx.NodeProto, window: Sizes, image: Sizes | None) -> Geometry | str:
    """The geometry of a Conv node with its padding made explicit, in the window's dimensions.

    Returns the auto_pad mode instead if it needs an image size that is not known.

    Raises:
        ModelError: an attribute that no convolution of these dimensions has.
    """
    attributes, count = {a.name: a for a in node.attribute}, len(window)
    strides = _numbers(node, attributes, "strides", (1,) * count, least=1)
    dilations = _numbers(node, attributes, "dilations", (1,) * count, least=1)
    mode = attributes["auto_pad"].s.decode(errors="replace") if "auto_pad" in attributes else ""
    if mode == "VALID":
        return Geometry(strides, dilations)
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        if image is None and max(strides) > 1:
            return mode
        sizes = image or (0,) * count
        sides = [
            _same(mode, *numbers) for numbers in zip(window, strides, dilations, sizes, strict=True)
        ]
        return Geometry(strides, dilations, tuple(side[end] for end in (0, 1) for side in sides))
    if mode not in ("", "NOTSET"):
        raise ModelError(f"{node.name}: auto_pad {mode!r} is unknown; export the model again")
    pads = _numbers(node, attributes, "pads", (0,) * 2 * count, least=-MOST)
    return Geometry(strides, dilations, pads)


def groups(node: onnx.NodeProto) -> int:
    """How many groups the channels of a Conv node fall into."""
    return next((a.i for a in node.attribute if a.name == "group"), 1)


def _numbers(
    node: onnx.NodeProto,
    attributes: Mapping[str, onnx.AttributeProto],
    name: str,
    default: tuple[int, ...],
    *,
    least: int,
) -> tuple[int, ...]:
    """An attribute with as many numbers as its default."""
    numbers = tuple(attributes[name].ints) if name in attributes else default
    if len(numbers) != len(default) or not all(least <= n <= MOST for n in numbers):
        count = len(default) // (2 if name == "pads" else 1)
        raise ModelError(
            f"{node.name}: {name} {list(numbers)} do not fit a {count}-D convolution; "
            "export the model again"
        )
    return numbers


def _same(mode: str, window: int, stride: int, dilation: int, size: int) -> Sizes:
    """Padding (before, after) that makes the output ceil(size / stride) long."""
    span = (window - 1) * dilation + 1
    steps = -(-size // stride) - 1
    total = max(0, steps * stride + span - size) if size else span - 1
    less, more = total // 2, total - total // 2
    return (less, more) if mode == "SAME_UPPER" else (more, less)


def refuse_misfit(name: str, geometry: Geometry, window: Sizes, image: Sizes | None) -> None:
    """Raises ModelError if a window is larger than the image that it slides over."""
    if window and image is not None and min(geometry.output(window, image)) < 1:
        raise ModelError(
            f"{name}: a {'×'.join(map(str, window))} window does not fit its "
            f"{'×'.join(map(str, image))} input; pass <<input_shape>> with the real size"
        )
