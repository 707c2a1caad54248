"""Topologies of well-known networks with random weights, for time alone.

The onnx package brings them without weights; these get weights that keep activations of
about one size from layer to layer, and any batch size.
"""

import math
from pathlib import Path

import numpy as np
import onnx

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
IR = 8  # the first since 4 may leave initializers out of the inputs


def light(name: str, batch: int, seed: int = 0) -> onnx.ModelProto:
    """A network such as "resnet50" or "vgg19" on images of 224×224."""
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    graph, rng = model.graph, np.random.default_rng(seed)
    stored = {t.name: t for t in graph.initializer}
    shapes = {
        node.output[0]: tuple(onnx.numpy_helper.to_array(stored[node.input[0]]))
        for node in graph.node
        if node.op_type == "ConstantOfShape"
    }
    shapes |= {t.name: tuple(t.dims) for t in graph.initializer}
    filled = {spot: values for node in graph.node for spot, values in _weights(node, shapes, rng)}
    kept = [n for n in graph.node if n.op_type != "ConstantOfShape"]
    for node in kept:
        if node.op_type == "Reshape":
            sizes = onnx.numpy_helper.to_array(stored[node.input[1]])
            filled[node.input[1]] = np.array([-1, *sizes[1:]], np.int64)
    data = next(i for i in graph.input if i.name not in stored)
    del graph.node[:], graph.initializer[:], graph.input[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in filled.items())
    graph.input.append(data)
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    model.ir_version = IR
    onnx.checker.check_model(model)
    return model


def _weights(
    node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], rng: np.random.Generator
) -> list[tuple[str, np.ndarray]]:
    """What a node stores: kernels of He's size, matrices likewise, and normalizations that
    change nothing."""
    if node.op_type in ("Conv", "Gemm"):
        weight, *bias = node.input[1:]
        shape = shapes[weight]
        scale = math.sqrt(2 / math.prod(shape[1:]))
        made = rng.standard_normal(shape, np.float32) * np.float32(scale)
        return [(weight, made), *((name, np.zeros(shapes[name], np.float32)) for name in bias)]
    if node.op_type == "BatchNormalization":
        ones = (1.0, 0.0, 0.0, 1.0)  # scale, bias, mean, variance
        pairs = zip(node.input[1:], ones, strict=True)
        return [(name, np.full(shapes[name], value, np.float32)) for name, value in pairs]
    return []
